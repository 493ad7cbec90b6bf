"""Images -> shards (pack, simgan.pack)."""
