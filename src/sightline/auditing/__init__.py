"""The audit of a dataset: images that distract a model, ranked and shown."""

from sightline.auditing.result import AuditResult
from sightline.auditing.run import audit, share_outside

__all__ = ["AuditResult", "audit", "share_outside"]
