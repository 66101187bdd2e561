"""The link: scenarios, the draw, receivers, decoders, and what compiles them."""
