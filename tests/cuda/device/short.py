"""What is found, in one line."""

import json
from typing import Any


def short(value: Any, most: int = 300) -> str:
    """In one line, with four digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, dict):
            return {name: rounded(part) for name, part in value.items()}
        return [rounded(part) for part in value] if isinstance(value, (list, tuple)) else value

    text = json.dumps(rounded(value), default=str).replace('"', "")
    return text if len(text) < most else text[:most] + " ..."
