"""How models come and go: pulled, downloaded, added, removed."""
