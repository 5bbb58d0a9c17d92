from metric_fixtures import network, region

__all__ = ["network", "region"]
