"""Toy decoders: a byte-level tokenizer with ChatML, and a random decoder of two layers in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>")


def toy_tokenizer(
    template: str | None = CHATML,
    special: Sequence[str] = SPECIAL,
    *,
    begins: str | None = None,
    **names: str,
):
    """Byte-level BPE over two sentences; `begins` is a token that it writes before plain text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    said = "user system assistant What is the capital of France? The capital of France is Paris."
    backend.train_from_iterator([said] * 3, trainer)
    if begins:
        pair = (begins, backend.token_to_id(begins))
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begins} $A", pair=f"{begins} $A $B", special_tokens=[pair]
        )
    names = {"eos_token": "<|endoftext|>"} | names
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **names)


def write_decoder(folder: Path, kind: str = "llama", **changes: object) -> Path:
    """A random decoder and its tokenizer in `folder`, the same for the same arguments."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = toy_tokenizer()
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96}
    config = AutoConfig.for_model(
        # wide weights: the likeliest token leads by far
        kind,
        vocab_size=len(tokenizer),
        initializer_range=0.5,
        **sizes | heads | changes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
