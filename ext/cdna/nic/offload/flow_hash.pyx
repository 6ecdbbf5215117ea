"""The types and reports of hashes as Python sees them; the hashes are in flow_hash.pxd."""
# build: control
