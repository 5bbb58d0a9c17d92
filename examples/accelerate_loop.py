"""The loop of plain_loop.py with Hugging Face Accelerate.

pip install accelerate
python examples/accelerate_loop.py     # or: accelerate launch examples/accelerate_loop.py
"""

import torch
from accelerate import Accelerator

import sightline as sl
from sightline.data.loader import create_loader

EPOCHS = 1


def main() -> None:
    accelerator = Accelerator()
    torch.manual_seed(0)
    digits = sl.data.create_dataset("digits", copies=1, size=32)
    model, spec = sl.load_model("sightline/small_cnn", classes=len(digits.classes), size=32)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.5), input_spec=spec)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    share = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
    batches = create_loader(digits["train"], size=32, batch_size=32 // accelerator.num_processes, train=True, **share)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)

    for epoch in range(EPOCHS):
        batches.sampler.set_epoch(epoch)
        objective.on_epoch_start(batches, epoch)
        wrapped.train()
        for batch in batches:
            output = wrapped(batch.to(accelerator.device))
            accelerator.backward(output["loss"])
            optimizer.step()
            optimizer.zero_grad()
            accelerator.print(f"loss {output['loss'].item():.4f}")

    objective.unwrap_model()  # the plain model


if __name__ == "__main__":
    main()
