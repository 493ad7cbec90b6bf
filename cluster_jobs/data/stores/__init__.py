"""Access to shard directories: on a file system, or below a URL with a local cache."""
