"""`thorn_worker`, `thorn_replay`, `thorn_purge`, `thorn_stats`, `thorn_listen`."""
