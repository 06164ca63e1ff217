"""The network: backbone, deformable convolution, warp head, checkpoints."""
