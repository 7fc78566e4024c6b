"""Audio-video emotion recognition that researchers trust and practitioners can run.

The public names are loaded when first used, so that `import cfnsr` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfnsr.errors import InputError as InputError
    from cfnsr.inference.predict import predict as predict
    from cfnsr.inference.timeline import Prediction as Prediction
    from cfnsr.models.zoo import create_model as create_model
    from cfnsr.models.zoo import list_models as list_models
    from cfnsr.sharing.loading import load as load
    from cfnsr.sharing.pretrained import from_pretrained as from_pretrained
    from cfnsr.sharing.pretrained import save_pretrained as save_pretrained
    from cfnsr.training.checkpoint import load_model as load_model

__version__ = "0.1.0"

_HOME = {
    "InputError": "cfnsr.errors",
    "Prediction": "cfnsr.inference.timeline",
    "create_model": "cfnsr.models.zoo",
    "from_pretrained": "cfnsr.sharing.pretrained",
    "list_models": "cfnsr.models.zoo",
    "load": "cfnsr.sharing.loading",
    "load_model": "cfnsr.training.checkpoint",
    "predict": "cfnsr.inference.predict",
    "save_pretrained": "cfnsr.sharing.pretrained",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'cfnsr' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
