"""Channel generators; `base.Channel` is their contract."""

from linksim.channels.base import Channel, channel_of, create_channel, list_channels

__all__ = ["Channel", "channel_of", "create_channel", "list_channels"]
