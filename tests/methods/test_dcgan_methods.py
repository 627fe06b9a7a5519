"""OC-SVM (CAE), DSEBM and DAGMM against independent computation, and what they share."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.svm import OneClassSVM
from torch import nn

import methods
from methods import dcgan
from methods.batch_norm import DebiasedBatchNorm1d, DebiasedBatchNorm2d
from methods.dagmm import DAGMM, DAGMMNet, DAGMMSettings, Dropout, Mixture
from methods.dsebm import DSEBM, DSEBMSettings, EnergyNet
from methods.ocsvm_cae import GRID_GAMMA, GRID_NU, OCSVMCAE, OCSVMCAESettings

FILTERS = (4, 8, 8)
# one epoch, five steps, because most tests ask nothing of the weights
SMALL = {
    "ocsvm-cae": OCSVMCAESettings(representation=8, filters=FILTERS, epochs=1, batch_size=8),
    "dsebm": DSEBMSettings(representation=8, filters=FILTERS, epochs=1, batch_size=8),
    "dagmm": DAGMMSettings(filters=FILTERS, epochs=1, batch_size=8),
}
CLASSES = {"ocsvm-cae": OCSVMCAE, "dsebm": DSEBM, "dagmm": DAGMM}


def make(name: str, seed: int = 0, **changes):
    return CLASSES[name](dataclasses.replace(SMALL[name], **changes), seed=seed, device="cpu")


def images(n: int, seed: int = 0, stripes: bool = True) -> np.ndarray:
    """Noise around vertical stripes, or around horizontal ones."""
    generator = np.random.default_rng(seed)
    wave = 110 * np.sign(np.sin(np.arange(32) * math.pi / 4 + 0.3))
    pattern = wave[None, :] if stripes else wave[:, None]
    return np.clip(127 + pattern + generator.normal(0, 20, (n, 3, 32, 32)), 0, 255).astype(np.uint8)


IN, OUT = images(40, 1), images(30, 2, stripes=False)


def test_settings_of_the_reference():
    shared = {"filters": (64, 128, 256), "epochs": 200, "lr": 1e-3, "autocast": False}
    for settings, own in [
        (OCSVMCAESettings(), {"representation": 256, "batch_size": 128, "nu": 0.1, "grid": True}),
        (DSEBMSettings(), {"representation": 256, "batch_size": 128, "noise": 0.5}),
        (DAGMMSettings(), {
            "representation": 5, "batch_size": 256, "components": 3, "energy_weight": 0.01,
            "covariance_weight": 0.0005, "mixture": "paper",
        }),
    ]:  # fmt: skip
        assert dataclasses.asdict(settings) == shared | own
    assert GRID_NU == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert list(GRID_GAMMA) == [2.0**k for k in range(-7, 3)]


def test_parameters_by_layer():
    encoder = dcgan.Encoder(256, (64, 128, 256))
    counts = [sum(p.numel() for p in layer.parameters()) for layer in encoder if list(layer.parameters())]
    assert counts == [3 * 64 * 9 + 64, 128, 64 * 128 * 9 + 128, 256, 128 * 256 * 9 + 256, 512, 4096 * 256 + 256]
    decoder = dcgan.Decoder(256, (64, 128, 256))
    counts = [sum(p.numel() for p in layer.parameters()) for layer in decoder if list(layer.parameters())]
    assert counts == [
        256 * 4096 + 4096, 2 * 4096, 256 * 128 * 9 + 128, 256, 128 * 64 * 9 + 64, 128, 64 * 3 * 9 + 3,
    ]  # fmt: skip
    assert sum(p.numel() for p in encoder.parameters()) == 1_420_544  # the paper says ≈ 1.4M
    energy = EnergyNet(256, (64, 128, 256))
    assert {name: p.numel() for name, p in energy.named_parameters() if not name.startswith("encoder.")} == {
        "bias": 3 * 32 * 32
    }
    assert sum(p.numel() for p in energy.parameters()) == 1_420_544 + 3072
    mixture = DAGMMNet(DAGMMSettings())
    assert [p.numel() for p in mixture.estimation.parameters()] == [7 * 64, 64, 64 * 10, 10, 10 * 3, 3]
    assert sum(p.numel() for p in mixture.parameters()) == 797_107


def test_kerass_conventions():
    for module in nn.Sequential(dcgan.Encoder(8, FILTERS), dcgan.Decoder(8, FILTERS)).modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            receptive = module.weight[0, 0].numel() if module.weight.ndim == 4 else 1
            limit = math.sqrt(6 / (receptive * sum(module.weight.shape[:2])))
            assert 0.8 * limit < module.weight.abs().max() <= limit
            assert (module.bias == 0).all()


def test_same_padding_is_below_and_right():
    layer = dcgan.DownConv(1, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 2, 2] = 1.0
        layer.bias.zero_()
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert layer(x).tolist() == [[[[10.0, 0.0], [0.0, 0.0]]]]


def test_transposed_convolution_is_the_adjoint():
    down, up = dcgan.DownConv(3, 5).double(), dcgan.UpConv(5, 3).double()
    with torch.no_grad():
        up.weight.copy_(down.weight)
        down.bias.zero_()
        up.bias.zero_()
    x, y = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 5, 4, 4).double()
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_images_are_scaled_to_one():
    x = make("dsebm")._inputs(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    assert x.flatten().tolist() == [-1.0, 1.0]


def test_normalisation_of_one_sample():
    layer = DebiasedBatchNorm1d(3, 1e-3, 0.01)
    assert layer(torch.randn(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
    two, x = DebiasedBatchNorm1d(3, 1e-3, 0.01), torch.randn(4, 3)
    torch.testing.assert_close(two(x), nn.BatchNorm1d(3, eps=1e-3)(x))


def test_running_averages_forget_their_initial_values():
    layer = DebiasedBatchNorm2d(2, 1e-3, 0.01)
    batches = [3 + 2 * torch.randn(5, 2, 4, 4, generator=torch.manual_seed(i)) for i in range(7)]
    for i, x in enumerate(batches):
        if i == 3:  # a checkpoint between two batches changes nothing
            again = DebiasedBatchNorm2d(2, 1e-3, 0.01)
            again.load_state_dict(layer.state_dict())
            layer = again
        layer(x)
    weights = np.array([0.01 * 0.99 ** (6 - i) for i in range(7)]) / (1 - 0.99**7)
    assert weights.sum() == pytest.approx(1)
    mean = sum(w * x.mean((0, 2, 3)) for w, x in zip(weights, batches, strict=True))
    var = sum(w * x.var((0, 2, 3)) for w, x in zip(weights, batches, strict=True))
    torch.testing.assert_close(layer.running_mean, mean.float())
    torch.testing.assert_close(layer.running_var, var.float())
    layer.eval()
    x = batches[0]
    expected = (x - mean.view(2, 1, 1)) / torch.sqrt(var.view(2, 1, 1) + 1e-3)
    torch.testing.assert_close(layer(x), expected.float())


@pytest.mark.parametrize("name", SMALL)
def test_scores_and_codes_of_a_fitted_method(name):
    # codes of an untrained encoder lie so close together that two SVMs on them differ by their solver's tolerance
    method = make(name, epochs=8 if name == "ocsvm-cae" else 1).fit(IN)
    scores, codes, variants = method.score_samples(OUT), method.encode(OUT), method.score_variants(OUT)
    assert scores.shape == (30,)
    assert scores.dtype == np.float64
    assert codes.shape == (30, 7 if name == "dagmm" else 8)
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(next(iter(variants.values())), scores)
    # neighbours in the batch change nothing
    np.testing.assert_allclose(scores[:7], method.score_samples(OUT[:7]), rtol=1e-4, atol=1e-4)
    if name == "ocsvm-cae":
        check_svms(variants, method.encode(IN).astype(np.float64), codes.astype(np.float64))


def check_svms(variants: dict[str, np.ndarray], train: np.ndarray, test: np.ndarray) -> None:
    """Scores are the decision functions of scikit-learn's SVMs on the codes."""
    fixed = OneClassSVM(nu=0.1, gamma="scale").fit(train)
    np.testing.assert_allclose(variants["fixed"], fixed.decision_function(test), atol=1e-6)
    assert variants["oracle"].shape == (90, 30)
    for row, (gamma, nu) in enumerate((gamma, nu) for gamma in GRID_GAMMA for nu in GRID_NU):
        expected = OneClassSVM(nu=nu, gamma=gamma).fit(train).decision_function(test)
        np.testing.assert_allclose(variants["oracle"][row], expected, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("count", [5, 9])  # less than a batch, and one more
def test_few_images(name, count):
    scores = make(name, epochs=8).fit(IN[:count]).score_samples(OUT)
    assert np.isfinite(scores).all()


def test_every_device_drops_the_same_units():
    """The mask is drawn on the CPU, so it is PyTorch's own there."""
    x = torch.rand(50, 20)
    torch.manual_seed(3)
    expected = F.dropout(x, 0.3)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.3)(x), expected)
    assert torch.equal(Dropout(0.3).eval()(x), x)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("setting", "value"), [("epochs", 0), ("batch_size", 0), ("representation", 0), ("lr", 0.0)])
def test_bad_settings(name, setting, value):
    with pytest.raises(ValueError, match=f"{setting}: got"):
        methods.create(name, **{setting: value})


@pytest.mark.parametrize(("name", "setting", "value"), [
    ("ocsvm-cae", "nu", 0.0), ("ocsvm-cae", "nu", 1.5), ("dagmm", "components", 0),
])  # fmt: skip
def test_bad_settings_of_one(name, setting, value):
    with pytest.raises(ValueError, match=f"{setting}: got"):
        methods.create(name, **{setting: value})


def test_svm_without_grid():
    assert list(make("ocsvm-cae", grid=False).fit(IN).score_variants(OUT)) == ["fixed"]


@pytest.mark.parametrize("training", [False, True])
def test_energy_and_reconstruction_by_finite_differences(training):
    torch.manual_seed(0)
    net = EnergyNet(6, FILTERS).double().train(training)
    with torch.no_grad():
        net.bias.normal_()
    x = torch.randn(2, 3, 32, 32).double()
    by_hand = 0.5 * ((x - net.bias) ** 2).sum((1, 2, 3)) - net.encoder(x).sum(1)
    torch.testing.assert_close(net(x), by_hand)
    direction = torch.randn_like(x)
    step = 1e-6
    slope = (net(x + step * direction) - net(x - step * direction)) / (2 * step)
    by_gradient = ((x - net.reconstruct(x)) * direction).sum((1, 2, 3))
    if training:  # images share the statistics of their batch, and the gradient is that of the sum of energies
        by_gradient, slope = by_gradient.sum(), slope.sum()
    torch.testing.assert_close(by_gradient, slope, rtol=1e-6, atol=1e-5)


def test_reconstruction_trains_every_parameter():
    net = EnergyNet(6, FILTERS)
    x = torch.randn(4, 3, 32, 32)
    F.mse_loss(net.reconstruct(x), x).backward()
    trained = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    # the last offsets move the gradient of the energy only through which units are rectified
    assert {name for name, _ in net.named_parameters()} - trained <= {"encoder.7.bias", "encoder.10.bias"}


def test_mixture_is_scipys():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(50, 4, generator=generator).double()
    memberships = torch.rand(50, 3, generator=generator).double().softmax(1)
    mixture = Mixture.estimate(z, memberships)
    assert mixture.weights.sum().item() == pytest.approx(1.0)
    for k in range(3):
        weights = memberships[:, k].numpy()
        plain = np.cov(z.numpy().T, aweights=weights, ddof=0)
        expected = plain + (1e-3 + 1e-6 * plain.trace() / 4) * np.eye(4)
        np.testing.assert_allclose(mixture.covariances[k], expected, atol=1e-12)
        np.testing.assert_allclose(mixture.means[k], np.average(z.numpy(), axis=0, weights=weights), atol=1e-12)
    density = sum(
        weight * stats.multivariate_normal(mean, covariance).pdf(z.numpy())
        for weight, mean, covariance in zip(*(part.numpy() for part in mixture), strict=True)
    )
    np.testing.assert_allclose(mixture.energy(z).numpy(), -np.log(density), rtol=1e-10)


def test_singular_mixture_has_an_energy():
    z = torch.zeros(10, 4).double()
    memberships = torch.tensor([[1.0, 0.0]]).repeat(10, 1).double()
    assert torch.isfinite(Mixture.estimate(z, memberships).energy(torch.randn(5, 4).double())).all()


def test_features_of_the_reconstruction():
    torch.manual_seed(0)
    net = DAGMMNet(DAGMMSettings(filters=FILTERS)).eval()
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    reconstructed, z = net(x)
    a, b = x.flatten(1), reconstructed.flatten(1)
    torch.testing.assert_close(z[:, :5], net.encoder(x))
    torch.testing.assert_close(z[:, 5], (a - b).norm(dim=1) / a.norm(dim=1))
    torch.testing.assert_close(z[:, 6], (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))
    kinds = [type(layer).__name__ for layer in net.estimation]
    assert kinds == ["Linear", "Tanh", "Dropout", "Linear", "Tanh", "Dropout", "Linear", "Softmax"]


def test_code_energy_is_the_reference_s_formula():
    generator = np.random.default_rng(0)
    z = generator.normal(size=(20, 4)) * np.array([1, 1, 1, 30])  # from likely to impossible
    weights, means = np.array([0.2, 0.5, 0.3]), generator.normal(size=(3, 4))
    roots = generator.normal(size=(3, 4, 4)) * np.array([1.0, 0.3, 0.01])[:, None, None]
    covariances = roots @ roots.transpose(0, 2, 1) + 1e-3 * np.eye(4)
    density = np.zeros(20)
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        distances = np.einsum("ni,ij,nj->n", z - mean, np.linalg.inv(covariance), z - mean)
        root = np.sqrt(np.linalg.det(2 * np.pi * covariance) + 1e-7)
        density += weight * np.exp(-distances / 2) / root + 1e-7
    mixture = Mixture(*(torch.from_numpy(part) for part in (weights, means, covariances)))
    np.testing.assert_allclose(mixture.code_energy(torch.from_numpy(z)), -np.log(density), rtol=1e-9)
    assert mixture.code_energy(torch.full((1, 4), 1e4).double()).item() == pytest.approx(-math.log(3e-7))


def test_random_jitter_is_drawn_on_the_diagonal():
    z, memberships = torch.zeros(10, 50), torch.full((10, 40), 1 / 40)
    torch.manual_seed(0)
    first, second = (Mixture.estimate(z, memberships, random_jitter=True).covariances for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.diag_embed(first.diagonal(dim1=1, dim2=2)))
    jitter = first.diagonal(dim1=1, dim2=2)
    assert jitter.mean().item() == pytest.approx(1e-3, rel=0.01)
    assert jitter.std().item() == pytest.approx(1e-4, rel=0.1)


def test_code_scores_under_the_mixture_of_the_last_batch(monkeypatch):
    batches = []
    estimate = Mixture.estimate.__func__

    def remember(cls, z, memberships, **options):
        batches.append(estimate(cls, z, memberships, **options))
        return batches[-1]

    monkeypatch.setattr(Mixture, "estimate", classmethod(remember))
    method = make("dagmm", mixture="code", epochs=2).fit(IN)
    assert len(batches) == 2 * 5
    z = torch.from_numpy(method.encode(OUT))
    variants = method.score_variants(OUT)
    assert list(variants) == ["code"]
    np.testing.assert_array_equal(variants["code"], -batches[-1].code_energy(z).detach().double().numpy())
    assert variants["code"].min() >= math.log(3e-7) - 1e-5
    assert list(make("dagmm").fit(IN).score_variants(OUT)) == ["paper"]


def test_code_goes_on_after_a_loss_that_is_not_finite(monkeypatch):
    code_energy, calls = Mixture.code_energy, []

    def infinite_once(self, z):
        calls.append(1)
        # infinite without a gradient, as where a density overflows: the weights stay finite
        return code_energy(self, z) + (math.inf if len(calls) == 3 else 0.0)

    monkeypatch.setattr(Mixture, "code_energy", infinite_once)
    method = make("dagmm", mixture="code", epochs=2).fit(IN)
    assert len(calls) == 2 * 5
    assert np.isfinite(method.score_samples(OUT)).all()


def test_code_without_any_finite_energy_is_a_divergence():
    method = make("dagmm", mixture="code", lr=1e30).fit(IN)
    with pytest.raises(methods.NonFiniteLossError, match="none of 30 energies is finite"):
        method.score_samples(OUT)


def test_non_finite_energies_become_the_lowest_scores(monkeypatch):
    method = make("dagmm").fit(IN)
    energies = torch.tensor([1.0, math.inf, 3.0, math.nan]).double()
    monkeypatch.setattr(Mixture, "energy", lambda self, z: energies.clone())
    assert method.score_samples(OUT[:4]).tolist() == [-1.0, -4.0, -3.0, -4.0]
    energies = torch.full((4,), math.nan).double()
    with pytest.raises(methods.NonFiniteLossError, match="none of 4 energies is finite"):
        method.score_samples(OUT[:4])


def test_a_mixture_that_is_not_finite_is_a_divergence(monkeypatch):
    monkeypatch.setattr(DAGMM, "encode", lambda self, features: np.full((len(features), 7), math.inf, np.float32))
    with pytest.raises(methods.NonFiniteLossError, match="mixture of the training images"):
        make("dagmm").fit(IN)
