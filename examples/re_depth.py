"""The paper's recipe as a script: ten members of a thousand steps under Stable Diffusion 1.5.

    python examples/re_depth.py photo.jpg "a photo of a statue"

Needs a GPU and, the first time, a network for the weights. Without a prompt BLIP-2 writes it, as in the
paper. Add "embedded" as a third argument to run the same script offline with the small models.
"""

from __future__ import annotations

import sys

import redepth


def main(photo: str, prompt: str | None = None, preset: str = "re-depth-anything") -> None:
    settings = redepth.load_preset(preset)
    print(f"{settings.name}: {settings.optim.members} members of {settings.optim.steps} steps")

    def on_step(report: redepth.StepReport) -> None:
        if report.step % 10 == 0:
            print(f"step {report.step}, loss {float(report.losses['total'].mean()):.4f}")

    result = redepth.refine(photo, preset=settings, prompt=prompt, seed=0, on_step=on_step)
    print(result.meaning)
    print("written to", result.save("out/re_depth"))


if __name__ == "__main__":
    main(*sys.argv[1:])
