"""loop BUNDLE N REPEATS: as loop.c."""

import sys
import time

from PIL import Image

from igpt_runtime import GenerationOptions, generate_all, open_session, tokens_of

session = open_session(sys.argv[1], device="cpu", spin="always")
primer = tokens_of(session, Image.new("RGB", (1, 1), (128, 128, 128)))
primer = primer[: len(primer) // 2]
for i in range(int(sys.argv[3]) + 1):
    start = time.perf_counter()
    drawn = generate_all(session, primer, GenerationOptions(n=int(sys.argv[2]), seed=0))
    if i:
        print(time.perf_counter() - start, end=" ")
print()
print(*drawn.ravel())
