"""A base model from its name to token ids: found, proven, loaded, fed.

    name -> resolve() -> BaseModel -> load_classifier(), load_encoder(), load_tokenizer() -> encode(), pad()
    an adapter's folder -> adapter_digest(), adapter_config_digest()

Errors: ModelError, for everything here. torch and transformers are imported inside the functions: importing
this package is free.
"""

from infra.models.digests import adapter_config_digest as adapter_config_digest
from infra.models.digests import adapter_digest as adapter_digest
from infra.models.digests import tensors_digest as tensors_digest
from infra.models.encoding import encode as encode
from infra.models.encoding import mean_over_tokens as mean_over_tokens
from infra.models.encoding import pad as pad
from infra.models.encoding import sentence_logits as sentence_logits
from infra.models.loading import Quantization as Quantization
from infra.models.loading import load_classifier as load_classifier
from infra.models.loading import load_encoder as load_encoder
from infra.models.loading import load_tokenizer as load_tokenizer
from infra.models.loading import without_rename_warning as without_rename_warning
from infra.models.resolving import PACKAGED as PACKAGED
from infra.models.resolving import BaseModel as BaseModel
from infra.models.resolving import ModelError as ModelError
from infra.models.resolving import resolve as resolve
