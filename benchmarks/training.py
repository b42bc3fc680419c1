"""Images per second of a training step, and what data and loss add to the network alone.

    python benchmarks/training.py            # quarter width, 64 px, batch 64: the defaults of `make train`
    python benchmarks/training.py --width 1 --size 224 --device cuda

Each round times the same batches three ways, interleaved, so that the ratios hold on a noisy machine: the network with a trivial
loss, the network with the Multiview Reprojection Loss, and the whole step with batches read from the data set.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace

import torch

from mrl.training.configuration import TrainConfig
from mrl.training.criterion import make_criterion
from mrl.training.distributed import resolve_device
from mrl.training.loop import Objective, StepSampler, make_optimiser, train_step
from mrl.training.preparation import prepare


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8, help="steps per way and round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    a = parser.parse_args()
    config = replace(
        TrainConfig(), image_size=a.size, width=a.width, batch_size=a.batch, n_images=a.images, device=a.device
    )
    device, bf16 = resolve_device(config)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(config, folder, progress=False)
        data, model = prepared.data, prepared.network
        model.bf16 = bf16
        model.to(device, memory_format=torch.channels_last).train()
        criterion, _ = make_criterion(config)
        optimiser, _ = make_optimiser(model, criterion, config)
        order = [next(iter(StepSampler(len(data["train"]), a.batch, 1, seed))) for seed in range(a.steps)]

        def load(i):
            return {k: v.to(device) for k, v in data["train"].__getitems__(order[i]).items()}

        kept = [load(i) for i in range(a.steps)]

        def trivial(x_hat, q_hat, t_hat, *truth, K=None):
            return x_hat.mean() + q_hat.sum() + t_hat.mean()

        ways = {
            "network alone": lambda i: train_step(Objective(model, trivial), optimiser, kept[i], config.clip),
            "network + loss": lambda i: train_step(Objective(model, criterion), optimiser, kept[i], config.clip),
            "network + loss + data": lambda i: train_step(Objective(model, criterion), optimiser, load(i), config.clip),
        }
        seconds = {name: [] for name in ways}
        for r in range(a.rounds + 1):
            for name, step in ways.items():
                start = time.perf_counter()
                for i in range(a.steps):
                    step(i)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if r:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
    print(
        f"{device}, {'bf16' if bf16 else 'fp32'}, {torch.get_num_threads()} threads; width {a.width}, {a.size} px, batch {a.batch}; medians of {a.rounds}"
    )
    base = seconds["network alone"]
    for name, s in seconds.items():
        ratio = statistics.median(x / y for x, y in zip(s, base))
        print(
            f"{name:24s} {a.steps * a.batch / statistics.median(s):8.1f} images/s   time x{ratio:.3f} of the network alone"
        )


if __name__ == "__main__":
    main()
