from metric_fixtures import region

__all__ = ["region"]
