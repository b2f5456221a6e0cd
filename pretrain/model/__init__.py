"""The video-text model: towers, temporal modules, heads, losses, and the checkpoints of others."""
