"""Networks for 3D shapes: generator, encoders, flow prior and the bridge between them."""
