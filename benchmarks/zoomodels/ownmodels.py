"""Small versions of families that the libraries lack: (name, family, group, how to build it, example inputs)."""

import functools
from collections.abc import Callable

import torch
from torch import nn
from zoomodels.own import dense, graphs, images, sequences
from zoomodels.spec import Architecture, Built, ids, tensor

_NODES = (graphs.N_NODES, 5)
GRAPH, SEQUENCE, DENSE = "graphs and sets", "recurrent and state-space", "dense, tabular and operators"
SEGMENT, DETECT, MAKE, CNN = "segmentation", "detectors", "diffusion and generators", "convolutional"
FINE = "super-resolution"

_Make = Callable[[], nn.Module]
_Inputs = Callable[[], tuple[torch.Tensor, ...]]
_IMAGE: _Inputs = lambda: (tensor(1, 3, 16, 16),)  # noqa: E731
_GREY: _Inputs = lambda: (tensor(1, 1, 16, 16),)  # noqa: E731
_STEPS: _Inputs = lambda: (tensor(1, 6, 4),)  # noqa: E731
_IDS: _Inputs = lambda: (ids(1, 7, below=30),)  # noqa: E731

_part = functools.partial
MODELS: tuple[tuple[str, str, str, _Make, _Inputs], ...] = (
    ("gcn", "GCN", GRAPH, _part(graphs.GraphConvolution, fixed=False), lambda: (tensor(*_NODES), graphs.adjacency())),
    ("gcn_fixed", "GCN", GRAPH, _part(graphs.GraphConvolution, fixed=True), lambda: (tensor(*_NODES),)),
    ("graphsage", "GraphSAGE", GRAPH, graphs.GraphSage, lambda: (tensor(*_NODES), graphs.EDGES)),
    ("gin", "GIN", GRAPH, graphs.GraphIsomorphism, lambda: (tensor(*_NODES), graphs.EDGES)),
    ("gat", "GAT", GRAPH, graphs.GraphAttention, lambda: (tensor(*_NODES),)),
    ("mpnn", "MPNN", GRAPH, graphs.MessagePassing, lambda: (tensor(*_NODES), graphs.EDGES, tensor(8, 2))),
    ("egnn", "EGNN", GRAPH, graphs.EquivariantGraph, lambda: (tensor(*_NODES), tensor(graphs.N_NODES, 3))),
    ("deep_sets", "Deep Sets", GRAPH, graphs.DeepSets, _STEPS),
    ("pointnet", "PointNet", GRAPH, graphs.PointNet, lambda: (tensor(1, 3, 10),)),
    ("set_transformer", "Set Transformer", GRAPH, graphs.SetTransformer, _STEPS),
    ("rnn_tagger", "RNN", SEQUENCE, _part(sequences.Tagger, "RNN"), _IDS),
    ("lstm_tagger", "LSTM", SEQUENCE, _part(sequences.Tagger, "LSTM"), _IDS),
    ("lstm_deep", "LSTM", SEQUENCE, _part(sequences.Tagger, "LSTM", num_layers=2), _IDS),
    ("lstm_both_ways", "LSTM", SEQUENCE, _part(sequences.Tagger, "LSTM", bidirectional=True), _IDS),
    ("gru_tagger", "GRU", SEQUENCE, _part(sequences.Tagger, "GRU"), _IDS),
    ("lstm_cell", "LSTM", SEQUENCE, _part(sequences.WrittenOut, "LSTMCell"), _STEPS),
    ("gru_cell", "GRU", SEQUENCE, _part(sequences.WrittenOut, "GRUCell"), _STEPS),
    ("attending_translator", "attention over a GRU", SEQUENCE, sequences.AttendingTranslator, lambda: (ids(1, 5, below=30), ids(1, 3, below=30))),
    ("selective_scan", "Mamba", SEQUENCE, sequences.SelectiveScan, lambda: (tensor(1, 5, 6),)),
    ("s4d", "S4D", SEQUENCE, sequences.DiagonalStateSpace, lambda: (tensor(1, 5, 5),)),
    ("hyena", "Hyena", SEQUENCE, sequences.LongConvolution, lambda: (tensor(1, 8, 5),)),
    ("linear_attention", "linear attention", SEQUENCE, sequences.LinearAttention, lambda: (tensor(1, 5, 8),)),
    ("retnet", "RetNet", SEQUENCE, sequences.Retention, lambda: (tensor(1, 6, 8),)),
    ("tcn", "TCN", SEQUENCE, sequences.TemporalConvolution, lambda: (tensor(1, 3, 12),)),
    ("wavenet", "WaveNet", SEQUENCE, sequences.WaveNet, lambda: (tensor(1, 1, 12),)),
    ("text_cnn", "TextCNN", SEQUENCE, sequences.TextConvolution, _IDS),
    ("crnn", "CRNN", SEQUENCE, sequences.ConvolutionalRecurrent, lambda: (tensor(1, 1, 8, 16),)),
    ("conv_lstm", "ConvLSTM", SEQUENCE, sequences.ConvolutionalLstm, lambda: (tensor(1, 3, 1, 6, 6),)),
    ("kan", "KAN", DENSE, dense.Kan, lambda: (tensor(2, 4),)),
    ("hypernetwork", "hypernetwork", DENSE, dense.HyperNetwork, lambda: (tensor(2, 4), tensor(2, 3))),
    ("fourier_operator", "FNO", DENSE, dense.FourierOperator, lambda: (tensor(1, 12, 1),)),
    ("deep_operator", "DeepONet", DENSE, dense.DeepOperator, lambda: (tensor(2, 8), tensor(5, 2))),
    ("siren", "SIREN", DENSE, dense.Siren, lambda: (tensor(3, 2),)),
    ("nerf", "NeRF", DENSE, dense.RadianceField, lambda: (tensor(2, 3), tensor(2, 3))),
    ("highway", "highway network", DENSE, dense.Highway, lambda: (tensor(2, 6),)),
    ("dense_experts", "dense mixture of experts", DENSE, dense.MixtureOfExperts, lambda: (tensor(2, 5),)),
    ("deepfm", "DeepFM", DENSE, dense.FactorizationMachine, lambda: (ids(2, 3, below=40),)),
    ("dlrm", "DLRM", DENSE, dense.Recommender, lambda: (tensor(2, 5), ids(2, 3, below=20))),
    ("deep_and_cross", "DCN", DENSE, dense.CrossNetwork, lambda: (tensor(2, 6),)),
    ("vae", "VAE", DENSE, dense.VariationalAutoencoder, lambda: (tensor(2, 8), tensor(2, 3))),
    ("realnvp", "RealNVP", DENSE, dense.CouplingFlow, lambda: (tensor(2, 6),)),
    ("dueling_q", "dueling DQN", DENSE, dense.DuelingQ, lambda: (tensor(2, 5),)),
    ("hopfield", "Hopfield", DENSE, dense.Hopfield, lambda: (tensor(2, 4),)),
    ("neural_ode", "neural ODE", DENSE, dense.NeuralOde, lambda: (tensor(2, 5),)),
    ("siamese", "Siamese", DENSE, dense.Siamese, lambda: (tensor(2, 6), tensor(2, 6) * 2)),
    ("mlp_relu", "MLP", DENSE, _part(dense.Perceptron, nn.ReLU), lambda: (tensor(2, 6),)),
    ("mlp_gelu", "MLP", DENSE, _part(dense.Perceptron, nn.GELU), lambda: (tensor(2, 6),)),
    ("mlp_mish", "MLP", DENSE, _part(dense.Perceptron, nn.Mish), lambda: (tensor(2, 6),)),
    ("u_net", "U-Net", SEGMENT, _part(images.UNet, transposed=True), _GREY),
    ("u_net_interpolating", "U-Net", SEGMENT, _part(images.UNet, transposed=False), _GREY),
    ("u_net_3d", "U-Net", SEGMENT, _part(images.UNet, transposed=True, dims=3), lambda: (tensor(1, 1, 8, 8, 8),)),
    ("u_net_plus_plus", "U-Net++", SEGMENT, images.NestedUNet, _GREY),
    ("attention_u_net", "Attention U-Net", SEGMENT, images.AttentionUNet, _GREY),
    ("pspnet", "PSPNet", SEGMENT, images.PyramidPooling, _IMAGE),
    ("deeplab", "DeepLab", SEGMENT, images.AtrousPyramid, _IMAGE),
    ("segnet", "SegNet", SEGMENT, images.SegNet, _IMAGE),
    ("retinanet", "RetinaNet", DETECT, images.FeaturePyramidDetector, _IMAGE),
    ("yolo_anchor_free", "YOLO", DETECT, images.AnchorFreeDetector, _IMAGE),
    ("yolo_anchors", "YOLO", DETECT, images.AnchorDetector, _IMAGE),
    ("centernet", "CenterNet", DETECT, images.CentreDetector, _IMAGE),
    ("espcn", "ESPCN", FINE, _part(images.SubPixel, residual=False), _IMAGE),
    ("edsr", "EDSR", FINE, _part(images.SubPixel, residual=True), _IMAGE),
    ("rcan", "RCAN", FINE, images.ChannelAttention, _IMAGE),
    ("diffusion_u_net", "diffusion U-Net", MAKE, images.Denoiser, lambda: (tensor(1, 1, 8, 8), torch.tensor([3.0]))),
    ("dit", "DiT", MAKE, images.DiffusionTransformer, lambda: (tensor(1, 1, 8, 8), tensor(1, 4))),
    ("dcgan", "DCGAN", MAKE, images.Generator, lambda: (tensor(1, 5),)),
    ("stylegan", "StyleGAN", MAKE, images.StyleGenerator, lambda: (tensor(1, 4),)),
    ("adain", "AdaIN", MAKE, images.StyleTransfer, lambda: (tensor(1, 3, 8, 8), tensor(1, 3, 8, 8) * 2)),
    ("image_autoencoder", "autoencoder", MAKE, images.ImageAutoencoder, _GREY),
    ("alphazero", "AlphaZero", CNN, images.PolicyAndValue, lambda: (tensor(1, 3, 4, 4),)),
    ("spatial_transformer", "spatial transformer", CNN, images.SpatialTransformer, lambda: (tensor(1, 1, 8, 8),)),
    ("lenet", "LeNet", CNN, images.LeNet, _GREY),
    ("capsules", "capsule network", CNN, images.Capsules, lambda: (tensor(1, 1, 7, 7),)),
)  # fmt: skip


def _build(make: _Make, inputs: _Inputs) -> Built:
    return Built(module=make(), args=inputs())


def architectures() -> list[Architecture]:
    """All of them."""
    return [
        Architecture(name=name, family=family, source="own", group=group, build=_part(_build, make, inputs))
        for name, family, group, make, inputs in MODELS
    ]
