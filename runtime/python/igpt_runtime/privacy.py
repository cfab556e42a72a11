"""Other libraries tell nobody how they are used, unless the user has asked for that.

ONNX Runtime sends events to Microsoft since 1.29 on Linux (Privacy.md in its repository), and keeps an identifier of
the device. huggingface_hub names the versions of the installed frameworks in its requests.
"""

import os

# Variables that switch this off when they are set to 1. They are read when the library is loaded.
ONNX_RUNTIME, HUB = "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"
_ASKED_FOR = ("0", "false", "no", "off", "n")  # values by which a user says that it is to be on


def is_asked_for(switch: str) -> bool:
    """Whether the user has set a variable so that the library may tell."""
    return os.environ.get(switch, "").strip().lower() in _ASKED_FOR


def turn_off(switch: str) -> None:
    """Call it before the library is loaded."""
    if not is_asked_for(switch):
        os.environ[switch] = "1"
