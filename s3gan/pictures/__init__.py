"""Pictures of what a generator has learned, one idea a file. None knows ranks or disks; `s3gan.look` wires them."""
