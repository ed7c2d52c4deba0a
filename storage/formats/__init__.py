"""Readers and writers of data-set formats (RPC and COCO JSON)."""
