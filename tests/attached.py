"""What an attached training left in an archive, and what it was like itself."""

from transformers import TrainerCallback

from storage.store import Store


def recorded(db, run_id):
    store = Store.open(db)
    try:
        return store.run(run_id), store.steps(run_id), store.drifts(run_id)
    finally:
        store.close()


class Witness(TrainerCallback):
    """Keeps the weights before each learner step, and what the trainer logged of it."""

    def __init__(self, trainer):
        self.trainer, self.before, self.logs = trainer, [], []
        trainer.add_callback(self)

    def on_step_begin(self, args, state, control, **kwargs):
        self.before.append(self.vector())

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))

    def vector(self):
        from trl_trainings import weights

        return weights(self.trainer)
