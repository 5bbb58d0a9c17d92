"""The check of a dataset: unreadable files, leaks between splits, nearly identical images, and wrong counts."""

from sightline.verification.verify import DatasetReport, download_dataset, verify_dataset

__all__ = ["DatasetReport", "download_dataset", "verify_dataset"]
