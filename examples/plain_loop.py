"""Guided training in a plain PyTorch loop: handwritten digits whose background misleads.

python examples/plain_loop.py
"""

import torch

import sightline as sl
from sightline.data.loader import create_loader

EPOCHS = 1


def main() -> None:
    torch.manual_seed(0)
    digits = sl.data.create_dataset("digits", copies=1, size=32)
    model, spec = sl.load_model("sightline/small_cnn", classes=len(digits.classes), size=32)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.5), input_spec=spec)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    objective.to(device)
    batches = create_loader(digits["train"], size=32, batch_size=32, train=True)

    for epoch in range(EPOCHS):
        batches.sampler.set_epoch(epoch)
        objective.on_epoch_start(batches, epoch)
        objective.train()
        for batch in batches:
            output = objective(batch.to(device))
            output["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            print(f"loss {output['loss'].item():.4f}")

    objective.unwrap_model()  # the plain model


if __name__ == "__main__":
    main()
