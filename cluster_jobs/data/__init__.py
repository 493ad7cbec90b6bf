"""The files that stages exchange: shards and the stream over them, label tables, pools."""
