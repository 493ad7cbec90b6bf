"""The files that stages hand each other: shards, stream, label table, pool.json."""
