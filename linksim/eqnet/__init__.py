"""What EQ-Net's LLR estimators and its quantizers share [Arvinte20].

The estimators (`linksim.detectors.eqnet`) end in the decoder and the codebook of a
quantizer (`linksim.quantization.eqnet`), so both are built from the layers in here.
"""
