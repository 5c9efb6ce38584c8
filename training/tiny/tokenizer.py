"""The tiny decoder's own tokenizer: bytes, one token a digit, and the few words of its problems as one each.

    <bos><system>...<user>What is 3 + 4?<assistant>#### 7<eos><user>...

Any text can be encoded and comes back as it was: what is no word falls back to its bytes. Each message opens
with its role's token; the assistant's ends with <eos>, by which generation stops. Padding is a token of its
own, so no loss mask can take an end for padding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL = (PAD, BOS, EOS, *(f"<{role}>" for role in ROLES))

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {{- '<' + message.role + '>' -}}
  {%- if message.role == 'assistant' -%}
    {%- generation -%}
      {{- message.content or '' -}}
      {%- if message.tool_calls -%}{{- message.tool_calls | tojson -}}{%- endif -%}
      {{- eos_token -}}
    {%- endgeneration -%}
  {%- else -%}
    {{- message.content or '' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}
"""


def make_tokenizer(
    texts: Iterable[str], *, vocab_size: int, model_max_length: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the frequent words of these texts, the same for the same texts.

    `vocab_size` counts 256 bytes and the special tokens; fewer tokens are made where the words give out.
    Encoding puts no special token anywhere: the template writes them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=[f"<{role}>" for role in ROLES],
        chat_template=CHAT_TEMPLATE,
        model_max_length=model_max_length,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
