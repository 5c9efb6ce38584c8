"""A base model from its name to token ids: found, proven, loaded, fed.

    resolving  name -> BaseModel, with the digest of its weights
    loading    BaseModel -> a classifier, a decoder, an encoder, a tokenizer; what is in force
    encoding   texts -> token ids -> padded minibatches -> logits of sentences
    tagging    labelled spans <-> BIO tags of tokens
    digests    what a saved adapter or model is

Errors: ModelError, for everything here. torch and transformers are imported inside the functions: importing
this package is free.
"""

from infra.models.digests import adapter_config_digest, adapter_digest, tensors_digest
from infra.models.encoding import encode, mean_over_tokens, pad, sentence_logits
from infra.models.loading import (
    Dtype,
    Quantization,
    load_causal,
    load_classifier,
    load_encoder,
    load_tokenizer,
    without_rename_warning,
)
from infra.models.resolving import PACKAGED, BaseModel, ModelError, resolve
from infra.models.tagging import TaggedSpan, bio_labels, encode_tags

__all__ = [
    "PACKAGED",
    "BaseModel",
    "Dtype",
    "ModelError",
    "Quantization",
    "TaggedSpan",
    "adapter_config_digest",
    "adapter_digest",
    "bio_labels",
    "encode",
    "encode_tags",
    "load_causal",
    "load_classifier",
    "load_encoder",
    "load_tokenizer",
    "mean_over_tokens",
    "pad",
    "resolve",
    "sentence_logits",
    "tensors_digest",
    "without_rename_warning",
]
