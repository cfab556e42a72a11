"""Trains the demo model: an ImageGPT of 32x32 pictures in 512 colours; or one of your own, of a directory of pictures.

Usage: python -m models.emoji.train [--data DIRECTORY] [--output DIRECTORY] [--steps N] ... An interrupted run goes on.
"""

import sys
from pathlib import Path

from igpt_runtime.errors import IgptError
from models.emoji.emoji import SIDE
from models.emoji.sources import Demo, Folder
from models.training.command import Size, make_parser, train_model
from models.training.loop import Recipe

SIZE = Size(SIDE, n_clusters=512, n_layer=6, n_embd=256, n_head=4)
RECIPE = Recipe(steps=4200, batch=8)
DATA = Path("build/emoji")  # where the packages of emoji are put


def main() -> None:
    """Train, and write the checkpoint."""
    parser = make_parser(__doc__, SIZE, RECIPE, Path(__file__).parent, Path("build/emoji-training"))
    parser.add_argument("--data", type=Path, help="directory of pictures to train on instead of emoji and digits")
    parser.add_argument("--no-mirror", action="store_true", help="with --data: never mirror the pictures, such as text")
    asked = parser.parse_args()
    try:
        source = Demo(DATA) if asked.data is None else Folder(asked.data, mirror=not asked.no_mirror)
        train_model(asked, source, SIZE)
    except IgptError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
