"""Training pictures of dataset folders per second: loading, posing, drawing, on one GPU. Objects of every split are taken.

python benchmarks/scenes.py assets/ --workers 14
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.library import AssetLibrary
from bozzetto.data.library.mixture import LEAST_TRIANGLES, WITHOUT, draw_poses
from bozzetto.data.render import Lights, render_objects
from bozzetto.systems.lgm.cameras import sample_views


def seconds(function, repeats: int, device: torch.device) -> list[float]:
    """Wall time of each of ``repeats`` calls with their device work done, sorted, after three that do not count."""
    out = []
    for k in range(repeats + 3):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function(k)
        if device.type == "cuda":
            torch.cuda.synchronize()
        out.append(time.perf_counter() - start)
    return sorted(out[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--limit", type=int, help="objects per source")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    datasets = [Dataset(folder) for folder in options.folders]
    found: dict[str, list[tuple[int, int]]] = {}
    for d, data in enumerate(datasets):
        for i in data.select(None, without=WITHOUT):
            if data.record(i)["triangles"] >= LEAST_TRIANGLES:
                found.setdefault(data.record(i)["source"], []).append((d, i))
    if options.limit:
        found = {s: n[:: max(len(n) // options.limit, 1)][: options.limit] for s, n in found.items()}
    numbers = [n for own in found.values() for n in own]
    place = {number: k for k, number in enumerate(numbers)}
    start = time.perf_counter()
    library = AssetLibrary.load(datasets, numbers, device, workers=options.workers)
    took = time.perf_counter() - start
    size = {k: round(v / 2**20) for k, v in library.bytes().items()}
    print(f"loaded {len(library):,} objects in {took:.1f} s ({len(library) / took:,.0f}/s); MiB on the device: {size}")
    print(f"{'source':14} {'triangles':>9} {'pose ms':>8} {'views/s':>9} {'with pose':>9} {'surroundings':>12}")
    batch = options.batch
    views = sample_views(batch, 4, torch.Generator().manual_seed(0)).to(device).world()
    count = batch * views.batch_shape[1]
    plain, around = (
        Lights.random(batch, torch.Generator().manual_seed(1), 0.25, share).to(device) for share in (0.0, 1.0)
    )

    def picture(scene, lights):
        return render_objects(scene, views, options.size, lights, outputs=("rgba", "depth"))

    for source, chosen in found.items():

        def scene(k: int, own=chosen):
            some = [place[own[(k * batch + i) % len(own)]] for i in range(batch)]
            return library.scene(draw_poses(library, some, [0, k]))

        made = [scene(k) for k in range(options.repeats + 3)]
        triangles = sum(len(s.faces) for s in made) / len(made) / batch
        times = [
            seconds(function, options.repeats, device)[options.repeats // 2]
            for function in (
                scene,
                lambda k, made=made: picture(made[k], plain),
                lambda k, scene=scene: picture(scene(k), plain),
                lambda k, made=made: picture(made[k], around),
            )
        ]
        rates = " ".join(f"{count / t:9,.0f}" for t in times[1:])
        print(f"{source:14} {triangles:9,.0f} {times[0] * 1e3:8.2f} {rates}", flush=True)


if __name__ == "__main__":
    main()
