"""What a metric is: the batch that it sees, the value that it gives each image, and the registry."""
