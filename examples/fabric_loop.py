"""The loop of plain_loop.py with Lightning Fabric, which knows devices, processes and precision.

python examples/fabric_loop.py
"""

import torch
from lightning_fabric import Fabric

import sightline as sl
from sightline.data.loader import create_loader

EPOCHS = 1


def main() -> None:
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.launch()
    torch.manual_seed(0)
    digits = sl.data.create_dataset("digits", copies=1, size=32)
    model, spec = sl.load_model("sightline/small_cnn", classes=len(digits.classes), size=32)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.5), input_spec=spec)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    batches = create_loader(digits["train"], size=32, batch_size=32 // fabric.world_size, train=True, **share)
    wrapped, optimizer = fabric.setup(objective, optimizer)

    for epoch in range(EPOCHS):
        batches.sampler.set_epoch(epoch)
        objective.on_epoch_start(batches, epoch)
        wrapped.train()
        for batch in batches:
            output = wrapped(batch.to(fabric.device))
            fabric.backward(output["loss"])
            optimizer.step()
            optimizer.zero_grad()
            fabric.print(f"loss {output['loss'].item():.4f}")

    objective.unwrap_model()  # the plain model


if __name__ == "__main__":
    main()
