"""The training of plain_loop.py as a LightningModule.

pip install 'lightning>=2.5,!=2.6.2,!=2.6.3'
python examples/lightning_module.py
"""

import lightning
import torch

import sightline as sl
from sightline.data.loader import create_loader

EPOCHS = 1


class GuidedDigits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.digits = sl.data.create_dataset("digits", copies=1, size=32)
        model, spec = sl.load_model("sightline/small_cnn", classes=len(self.digits.classes), size=32)
        self.objective = sl.Objective(model, sl.SegmentOverlap(beta=0.5), input_spec=spec)

    def training_step(self, batch: sl.Batch, number: int) -> torch.Tensor:
        output = self.objective(batch)
        self.print(f"loss {output['loss'].item():.4f}")
        return output["loss"]

    def on_train_epoch_start(self) -> None:
        self.batches.sampler.set_epoch(self.current_epoch)
        self.objective.on_epoch_start(self.batches, self.current_epoch)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        share = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        size = 32 // self.trainer.world_size
        self.batches = create_loader(self.digits["train"], size=32, batch_size=size, train=True, **share)
        return self.batches

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.objective.parameters(), 1e-3)


def main() -> None:
    torch.manual_seed(0)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=EPOCHS, devices=1, use_distributed_sampler=False, **quiet)
    module = GuidedDigits()
    trainer.fit(module)
    module.objective.unwrap_model()  # the plain model


if __name__ == "__main__":
    main()
