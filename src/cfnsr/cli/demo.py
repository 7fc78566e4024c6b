"""The demo: the whole job on a synthetic corpus, with settings that fit some minutes of two cores."""

from pathlib import Path
from time import monotonic
from typing import Annotated

from typer import Option

from cfnsr.cli.app import app
from cfnsr.cli.corpus import prepare_takes, write_synthetic
from cfnsr.cli.train import train_models, write_report
from cfnsr.console import say
from cfnsr.errors import InputError
from cfnsr.files import check_folder

ACTORS = 12  # twenty-one takes each
FOLD = 1  # of the six: enough to see the order of the models
MODEL = "cfn_sr"
PICTURES = 64  # pixels of the small preset


@app.command(epilog="Example: cfnsr demo --out demo")
def demo(
    out: Annotated[Path, Option(help="Folder for all that is made.")] = Path("demo"),
    seed: Annotated[int, Option(help="Seed of the synthetic corpus and of the training.")] = 0,
) -> None:
    """Synthetic corpus, preparation, cross-validation, report and a prediction: the whole job in minutes."""
    from cfnsr.corpus.scan import scan
    from cfnsr.data.folds import PROTOCOLS
    from cfnsr.data.store import Store
    from cfnsr.features.preparation import Preparation
    from cfnsr.inference.predict import predict
    from cfnsr.inference.writers import to_table
    from cfnsr.training.checkpoint import load_model
    from cfnsr.training.config import find_recipe
    from cfnsr.training.prepared import PreparedCorpus

    check_folder(out)
    if seed < 0:
        raise InputError(f"seed {seed}: expected 0 or more")
    started = monotonic()
    corpus, prepared, runs = out / "corpus", out / "prepared", out / "runs"
    say("1/5 a synthetic corpus: drawn faces that speak")
    write_synthetic(corpus, actors=ACTORS, seed=seed, workers=None)
    say("2/5 preparation: faces cut out, sound turned into MFCCs")
    takes = scan(corpus)
    prepare_takes(takes, corpus, prepared, Preparation(size=PICTURES))
    say(f"3/5 cross-validation: fold {FOLD} of six, actors never seen in training")
    recipe = find_recipe("small")
    store = Store(prepared)
    train_models(
        [MODEL], store, runs, protocols=["nested"], recipe=recipe, seeds=[seed], folds=[FOLD], resume=True
    )
    say("4/5 report")
    write_report(runs, explain=[prepared])
    say("5/5 a prediction for a take of an actor the model never saw")
    fold = PreparedCorpus(store).folds(PROTOCOLS["nested"])[FOLD - 1]
    unseen = next(take for take in takes.takes if take.actor == fold.test[0] and take.emotion == "happy")
    checkpoint = runs / "nested" / MODEL / f"seed_{seed}" / f"fold_{FOLD}"
    assert unseen.video is not None  # noqa: S101 - the synthetic corpus has pictures
    prediction = predict(load_model(checkpoint), unseen.video, openface=unseen.openface)
    print(to_table(prediction))
    print(f"the actor played: {unseen.emotion}")
    predict_everyday(unseen.video)
    print(f"contact sheet: {prepared / 'contact_sheet.png'}")
    print(f"report: {runs / 'report.html'}")
    print(f"done in {(monotonic() - started) / 60:.1f} minutes")


def predict_everyday(file: Path) -> None:
    """Predict a file by the model that comes with the package, or say what it needs."""
    from cfnsr.features import expression_net, speech_encoder
    from cfnsr.inference.predict import predict
    from cfnsr.inference.recogniser import as_recogniser
    from cfnsr.inference.writers import to_table
    from cfnsr.sharing.loading import load
    from cfnsr.sharing.shipped import DEFAULT

    model = as_recogniser(load(DEFAULT))
    name, sha256 = model.preparation.speech_encoder, model.preparation.speech_sha256
    if speech_encoder.is_here(name, sha256) and expression_net.folder_here() is not None:
        print(f"the same take by {DEFAULT}, a model of people that comes with the package:")
        print(to_table(predict(model, file)))
        return
    print(
        f"for people there is the model {DEFAULT}: `cfnsr predict interview.mp4` fetches what it needs once "
        f"(pip install '.[pretrained]'); without a network set {speech_encoder.VARIABLE} to a folder with "
        f"{name}, and {expression_net.VARIABLE} to one with the expression network"
    )
