"""Damaged files for the tests of readers: whatever a file holds, they refuse or read it."""

import os
import struct

from common import checkpoint

FUZZ_CASES = int(os.environ.get("PATHNET_FUZZ_CASES", "150"))  # that each reader meets


def damaged(content, rng):
    """Damages a file's content at random in one to three places, most often near its start.

    Args:
      content: bytes.
      rng: numpy Generator.

    Returns:
      The damaged bytes.
    """
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        reach = min(len(content), int(rng.choice([256, len(content) + 1])))
        start = int(rng.integers(0, reach + 1))
        length = int(rng.integers(1, 17))
        match rng.integers(0, 7):
            case 0:
                content[start : start + 1] = bytes([1 << rng.integers(0, 8)])
            case 1:
                content[start : start + length] = rng.bytes(length)
            case 2:
                content[start : start + 4] = rng.choice([b"\0", b"\x7f", b"\xff"]) * 4
            case 3:
                content[start : start + 4] = struct.pack("<I", rng.integers(0, 70))
            case 4:
                del content[start : start + length]
            case 5:
                content[start:start] = content[: 64 * length]
            case 6:
                del content[start:]
    return bytes(content)


def reseal(folder):
    """Gives a checkpoint the checksums of its files, as somebody would on purpose."""
    sums = [f"{checkpoint._sha256(folder / n)}  {n}\n" for n in checkpoint.FILES]
    (folder / "SHA256SUMS").write_text("".join(sums))
