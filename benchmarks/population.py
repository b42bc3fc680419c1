"""How far the generator's people are from those of ICT-FaceKit, which were scanned, and what weights on them change.

python benchmarks/population.py --ict FaceXModel            # prints the record
python benchmarks/population.py --ict FaceXModel --write    # also results/population/ict.json, from a clean commit
"""

import argparse
import json

import numpy as np
from scipy.optimize import minimize

from mrl.faces.carrier import into_head_frame, shared_vertices
from mrl.faces.population import LABELS, load_population, with_individuality
from mrl.faces.sources import read_face_model
from mrl.io.files import ROOT, write_json
from mrl.training.run import commit

DRAWN, SEED, MODES = 300, 0, 100
INDIVIDUALITIES = 1.0, 1.5, 2.0, 2.5, 3.0
SHARE = 0.05  # of the penalty on weights: their sum of squares, relative to equal weights


def corresponding(people, model):
    "Return mean (n, 3) and modes (M, n, 3) of the model at the face vertices that it reaches, and these vertices (n,)."
    model = into_head_frame(model, people)
    rows, weights = shared_vertices(people, model)
    vertices = people.face_vertices[rows]
    modes = np.stack([weights @ mode for mode in model.basis.double().numpy()])
    return weights @ model.mean.double().numpy(), modes, vertices


def without_motion(x):  # (n, 3) -> function of (..., n, 3)
    "Return a function that removes small rigid motions of a face from displacements of its vertices."
    centred = x - x.mean(0)
    shifts = [np.tile(axis, (len(x), 1)).ravel() for axis in np.eye(3)]
    turns = [np.cross(axis, centred).ravel() for axis in np.eye(3)]
    motions = np.linalg.qr(np.stack([*shifts, *turns], 1))[0]

    def remove(displacements):
        flat = displacements.reshape(*displacements.shape[:-2], -1)
        return (flat - flat @ motions @ motions.T).reshape(displacements.shape)

    return remove


def mean_length(displacements):
    "Return the mean length of displacements (..., n, 3), over all of them."
    return float(np.linalg.norm(displacements, axis=-1).mean())


def from_mean(people, vertices, factor, remove):
    "Return how far people with an individuality are from the mean of all."
    shown = with_individuality(people, factor).coefficients[:: len(people) // DRAWN].astype(np.float64)
    changes = np.tensordot(shown - people.coefficients.mean(0), people.basis[:, vertices].astype(np.float64), 1)
    return mean_length(remove(changes))


def label_terms(labels):  # (S, K) -> (S, K + K (K + 1) / 2)
    "Return labels and their products, standardised."
    z = (labels - labels.mean(0)) / labels.std(0)
    i, j = np.triu_indices(z.shape[1])
    terms = np.concatenate([z, z[:, i] * z[:, j]], 1)
    return (terms - terms.mean(0)) / terms.std(0)


def weights_towards(terms, scores, target):
    "Return weights (S,), exponential in the terms, whose mean of the scores (S, M) comes near a target (M,)."

    def softmax(theta):
        a = terms @ theta
        e = np.exp(a - a.max())
        return e / e.sum()

    def cost(theta):
        p = softmax(theta)
        rest, equal = p @ scores - target, len(p)
        value = rest @ rest / (target @ target) + SHARE * equal * (p @ p)
        slope = scores @ (2 * rest / (target @ target)) + 2 * SHARE * equal * p
        return value, (p * (slope - p @ slope)) @ terms

    return softmax(minimize(cost, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B").x)


def measure(people, model):
    "Return the record of the comparison; lengths in mm, after removing the rigid motion."
    mean, modes, vertices = corresponding(people, model)
    remove = without_motion(mean)
    drawn = np.random.default_rng(SEED).standard_normal((DRAWN, len(modes)))
    scanned = remove(np.tensordot(drawn, modes, 1))  # from their own mean
    coefficients = people.coefficients.astype(np.float64)
    centred = coefficients - coefficients.mean(0)
    basis = people.basis[:, vertices].astype(np.float64)
    offset = remove(mean - people.mean[vertices] - np.tensordot(coefficients.mean(0), basis, 1))
    spread = (remove(basis) * centred.std(0)[:, None, None]).reshape(len(basis), -1)
    directions = np.linalg.svd(spread, full_matrices=False)[2][:MODES]
    scores = (centred / centred.std(0)) @ (spread @ directions.T)
    target = directions @ offset.ravel()
    labels = np.stack([people.labels[k] for k in LABELS], 1).astype(np.float64)
    p = weights_towards(label_terms(labels), scores, target)
    rest = offset - (p @ scores @ directions).reshape(offset.shape)
    outside = offset - (target @ directions).reshape(offset.shape)
    inside = scanned.reshape(DRAWN, -1) @ directions.T
    z = (inside + target) / scores.std(0)
    beyond = scanned - (inside @ directions).reshape(scanned.shape)
    return {
        "vertices": len(vertices),
        "distance of the means": mean_length(offset),
        "distance of the means, outside the 3DMM": mean_length(outside),
        "distance of the means, weighted": mean_length(rest),
        "scanned people from their own mean": mean_length(scanned),
        "scanned people from the generator's mean": mean_length(scanned + offset),
        "scanned people from the weighted mean": mean_length(scanned + rest),
        "scanned people, outside the 3DMM": mean_length(beyond),
        "generated people, effective number": float(1 / (p @ p)),
        "coefficients of scanned people, first 10": float(np.sqrt((z[:, :10] ** 2).mean())),
        "coefficients of scanned people, all": float(np.sqrt((z**2).mean())),
        "coefficients of scanned people, by ten modes": np.sqrt((z**2).mean(0).reshape(-1, 10).mean(1)).tolist(),
        "people from the generator's mean, by individuality": {
            str(factor): from_mean(people, vertices, factor, remove) for factor in INDIVIDUALITIES
        },
        "labels, mean": dict(zip(LABELS, labels.mean(0).tolist())),
        "labels, weighted mean": dict(zip(LABELS, (p @ labels).tolist())),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", required=True, help="the folder FaceXModel of ICT-FaceKit")
    parser.add_argument("--write", action="store_true", help="write results/population/ict.json")
    args = parser.parse_args()
    people, model = load_population(), read_face_model(args.ict)
    settings = {"drawn": DRAWN, "seed": SEED, "modes": MODES, "share": SHARE}
    about = {"commit": commit(), "population": people.sha256, "face model": model.name, "config": settings}
    record = about | measure(people, model)
    print(json.dumps(record, indent=1))
    if args.write:
        write_json(ROOT / "results" / "population" / "ict.json", record)
