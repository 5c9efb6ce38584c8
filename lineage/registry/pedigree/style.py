"""How a page looks: light and dark, on a screen, on a phone and on paper."""

SERIES = 8
"""Colours that tell values apart; --c0 to --c7."""

STYLE = """
:root{color-scheme:light dark;--paper:#fbf9f3;--sheet:#fffefa;--ink:#211d17;--soft:#6f675b;
--line:#e4ddce;
--seal:#8f2f2a;--source:#4d7a5f;--gold:#b9812a;--hard:#7b5c90;--replay:#3f6a8c;--other:#98907f;
--c0:#3f6a8c;--c1:#c08a35;--c2:#4d7a5f;--c3:#7b5c90;--c4:#5fa3a3;--c5:#a7a04a;--c6:#b57f93;--c7:#98907f}
@media(prefers-color-scheme:dark){:root{--paper:#16140f;--sheet:#1e1b15;--ink:#ece5d6;--soft:#a2988a;
--line:#363126;
--seal:#d9786c;--source:#83b596;--gold:#dba94f;--hard:#b697cb;--replay:#7eaed3;--other:#8f8776;
--c0:#7eaed3;--c1:#dba94f;--c2:#83b596;--c3:#b697cb;--c4:#6fbcbc;--c5:#c2bb68;--c6:#d3a0b2;--c7:#8f8776}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:48px 28px 40px}
header{border-bottom:1px solid var(--line);padding-bottom:22px;margin-bottom:34px}
h1,h2{font-family:"Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua",Georgia,serif;
font-weight:600}
h1{font-size:46px;line-height:1.1;margin:4px 0 10px;letter-spacing:-.01em;overflow-wrap:anywhere}
h1 .at{color:var(--seal);padding:0 .12em;font-weight:400}
h1.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
font-size:26px}
h2{font-size:21px;margin:0 0 14px}
h3{font-size:13px;font-weight:600;color:var(--soft);margin:22px 0 8px}
section{margin-bottom:40px}
.kicker,.label{letter-spacing:.12em;text-transform:uppercase;font-size:11.5px;color:var(--soft)}
.kicker{margin:0}
.lead{font-size:17px;max-width:46em;margin:10px 0 0}
.pills{margin:0 0 8px}
.pill{background:var(--seal);color:var(--paper);border-radius:99px;padding:3px 13px;margin-right:6px;
font-size:13px;font-weight:600}
.mono,code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.quiet,small{color:var(--soft)}
small{display:block;font-size:12px}
.scroll{overflow-x:auto}
svg{display:block}
.scroll>svg{min-width:900px;width:100%;height:auto}
svg text{fill:var(--ink);font-size:14px}
svg .note{fill:var(--soft);font-size:12.5px}
svg .label{fill:var(--soft);font-size:11px}
svg .mono{font-size:15px}
.end{text-anchor:end}.mid{text-anchor:middle}
.card{fill:var(--sheet);stroke:var(--line);stroke-width:1.5}
.flow{stroke:var(--soft);stroke-width:1.6;fill:none}.tip{fill:var(--soft)}
.source,.ribbon{fill:var(--source)}.ribbon{opacity:.36;stroke:var(--paper);stroke-width:1.5}
.flag{fill:var(--seal)}.flag.empty{fill:none;stroke:var(--soft);stroke-dasharray:4 4}
svg .flagged{fill:var(--paper);font-weight:600}
.s-gold{fill:var(--gold);background:var(--gold)}.s-hard{fill:var(--hard);background:var(--hard)}
.s-replay{fill:var(--replay);background:var(--replay)}.s-other{fill:var(--other);background:var(--other)}
.c0{fill:var(--c0);background:var(--c0)}
.c1{fill:var(--c1);background:var(--c1)}
.c2{fill:var(--c2);background:var(--c2)}
.c3{fill:var(--c3);background:var(--c3)}
.c4{fill:var(--c4);background:var(--c4)}
.c5{fill:var(--c5);background:var(--c5)}
.c6{fill:var(--c6);background:var(--c6)}
.c7{fill:var(--c7);background:var(--c7)}
.gone{fill:var(--seal);background:var(--seal)}
.rule{stroke:var(--line);fill:none}
.recall{border:1.5px solid var(--seal);border-left-width:6px;border-radius:8px;padding:12px 18px;
margin:16px 0;
background:var(--sheet)}.recall p{margin:0}.recall p+p{margin-top:8px}
.recall b,.back,small.back{color:var(--seal)}
blockquote{margin:18px 0 0;padding:14px 20px;background:var(--sheet);border:1px solid var(--line);
border-radius:8px;
font-size:16px;overflow-wrap:anywhere;max-height:26em;overflow-y:auto}blockquote p{margin:8px 0 0}
.scroll>svg.tree{min-width:0;max-width:none;margin:0 auto}
.place{fill:var(--sheet);stroke:var(--line);stroke-width:1.5}.place.here{stroke:var(--ink);
stroke-width:2}
.place.k-source{stroke:var(--source)}.place.k-model{stroke:var(--gold)}
.place.recalled{stroke:var(--seal);stroke-width:2.5}.place.folded{fill:none;stroke:var(--soft);
stroke-dasharray:4 4}
svg .title{font-size:13.5px;font-weight:600}
.edge{fill:none;stroke:var(--soft);stroke-width:1.3;opacity:.6}
.folds{columns:2 440px;column-gap:18px}
.folds table{table-layout:fixed;margin-bottom:18px;break-inside:avoid}
.folds td,.folds th{padding:6px 10px}
.folds th:first-child{width:36%}.folds th:nth-child(2){width:32%}.folds th:nth-child(4){width:17%}
.folds td:first-child{overflow-wrap:anywhere}
tfoot td{color:var(--soft);border-bottom:0;border-top:1px solid var(--line)}
.share{height:9px;margin-top:7px}.share i{display:block;height:100%;min-width:2px;border-radius:3px;
background:var(--replay);overflow:hidden}.share u{display:block;height:100%;background:var(--seal)}
.rows{list-style:none;margin:0;padding:0}.rows li{display:grid;grid-template-columns:104px 1fr;gap:18px;
padding:12px 0;
border-top:1px solid var(--line);break-inside:avoid}.rows p{margin:0;overflow-wrap:anywhere}
.rows .when{color:var(--soft);font-variant-numeric:tabular-nums}
.when i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px}
.rows .of{color:var(--soft);font-size:13px}.rows .line{display:flex;flex-wrap:wrap;gap:6px;
align-items:center;
margin-top:7px;font-size:12.5px}.chips{display:flex;flex-wrap:wrap;gap:6px}.from{color:var(--soft)}
.chip{border:1px solid var(--line);background:var(--sheet);border-radius:6px;padding:2px 9px}
.chip b{font-weight:600;font-size:12px}.chip i{color:var(--source);font-style:normal}
table{border-collapse:collapse;width:100%;background:var(--sheet);
border:1px solid var(--line)}
.scroll>table{min-width:800px}
th,td{text-align:left;padding:9px 14px;border-bottom:1px solid var(--line);vertical-align:top;
unicode-bidi:isolate}
th{font-size:12.5px;font-weight:600;color:var(--soft);white-space:nowrap}
td{overflow-wrap:break-word;max-width:21em}
tbody tr:last-child td{border-bottom:0}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.whisker{width:224px;height:16px;margin-top:4px}
.axis{stroke:var(--line);stroke-width:2}.range{stroke:var(--seal);stroke-width:8;opacity:.35}
.tick{stroke:var(--seal);stroke-width:2.5}
.bar{display:flex;gap:2px;height:12px;border-radius:6px;overflow:hidden}
.legend{margin:8px 0 18px}.legend span{margin-right:22px;display:inline-block}
.legend em{font-style:normal;color:var(--soft);
font-size:12.5px}
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px}
.span{position:relative;height:6px;width:140px;margin:8px 0 3px;background:var(--line);border-radius:3px}
.span i{position:absolute;top:0;bottom:0;background:var(--replay);border-radius:3px}
details{margin-top:12px}summary{cursor:pointer;color:var(--seal);margin-bottom:12px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:7px 26px;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere;font-size:13.5px}
footer{border-top:1px solid var(--line);padding-top:16px;color:var(--soft);font-size:13.5px}
@media(max-width:640px){main{padding:28px 16px}h1{font-size:34px}
dl{grid-template-columns:1fr;gap:2px}dd{margin-bottom:10px}}
@media print{:root{--paper:#fff;--sheet:#fff}main{max-width:none;padding:0}section{break-inside:auto}
h2,h3{break-after:avoid}tr,svg,.recall{break-inside:avoid}blockquote{max-height:none}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
