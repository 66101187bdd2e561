"""Channel generators; see `base.Channel`."""

from linksim.channels.base import Channel, create_channel, list_channels

__all__ = ["Channel", "create_channel", "list_channels"]
