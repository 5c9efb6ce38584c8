"""What the pages of verdicts have beside the style that they share with pedigrees."""

STILL = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}\">"
)
"""What a page may do, as its head says it: load nothing, and run the scripts named alone."""

STYLE = """<style>
:root{--ok:var(--source)}
h1{font-size:40px}
.pill.pass{background:var(--ok)}.pill.plain{background:none;color:var(--soft);border:1px solid var(--line)}
.next{margin:18px 0 0}.next code{background:var(--sheet);border:1px solid var(--line);border-radius:6px;
padding:4px 10px;font-size:13.5px}
.mark{font-size:12.5px;font-weight:600;white-space:nowrap}
.mark.ok{color:var(--ok)}.mark.failed,.mark.crashed{color:var(--seal)}
.mark.warned,.mark.waived{color:var(--gold)}
.rules td:first-child{max-width:30em}.rules code{font-size:13px}
.rules td:nth-child(3){white-space:nowrap}.rules td{padding:7px 14px}
.spark{width:150px;height:30px}
.spark .line{fill:none;stroke:var(--replay);stroke-width:1.6;stroke-linejoin:round}
.spark .limit{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3;opacity:.7}
.spark .dot{fill:var(--replay)}.spark .dot.bad{fill:var(--seal)}
.spark .c1{stroke:var(--c1);fill:none}.spark .c2{stroke:var(--c2);fill:none}
.spark .c3{stroke:var(--c3);fill:none}
.past{height:16px;max-width:100%}.past .pass{fill:var(--ok)}.past .fail{fill:var(--seal)}
.past .error{fill:var(--gold)}
.rows li{grid-template-columns:128px 1fr}.rows .when{font-size:12.5px}
.rows .chip{font-size:12px}.rows .chip.broke{border-color:var(--seal);color:var(--seal)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:14px;margin:0 0 30px}
.card-{background:var(--sheet);border:1px solid var(--line);border-radius:10px;padding:14px 18px 12px}
.card- b{font-size:16px}.card- p{margin:4px 0 10px;color:var(--soft);font-size:13px}
.card- p em{font-style:normal;color:var(--seal)}
.tools{display:flex;flex-wrap:wrap;gap:10px 18px;align-items:center;margin:0 0 12px;font-size:13.5px;
color:var(--soft)}
.tools input[type=search]{font:inherit;font-size:14px;color:var(--ink);background:var(--sheet);
border:1px solid var(--line);border-radius:8px;padding:7px 12px;width:320px;max-width:100%}
.batches td{padding:6px 14px}.batches small{line-height:22px}.batches .at,.batches .run{white-space:nowrap;
font-variant-numeric:tabular-nums}.batches td:nth-child(3){max-width:24em}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:3px}
a:hover{text-decoration-color:var(--ink)}
</style>"""
