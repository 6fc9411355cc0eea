"""Learn to guard a Hugging Face ``Trainer``: its callbacks never see a step's loss, it does."""

import sys
from pathlib import Path

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from lr_callbacks import Controller, Guard, LRScaler, Observation, Snapshots, StepGate
from lr_callbacks.controller import row
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import History, settled


class GuardedTrainer(Trainer, TrainerCallback):
    def create_optimizer(self, *given):
        optimizer = super().create_optimizer(*given)
        self.add_callback(self)
        self.controller, self.scaler = Controller(policy=Guard()), LRScaler(optimizer)
        self.known, self.snapshots = self.controller.init(), Snapshots(self.model, [optimizer])
        self.gate = StepGate(optimizer)
        self.unsaved, self.mean = not self.snapshots.save("start"), 0.0
        self.run = History({}, {"train/loss": [], "lr/AdamW": []}, [], 0, 0)
        return optimizer

    def training_step(self, *given, **named):
        loss = super().training_step(*given, **named)  # of one batch, divided by their number
        self.gate.watch(loss)
        self.mean += loss.item()
        return loss

    def on_step_end(self, args, state, control, **_):
        step, held, out = state.global_step - 1, self.gate.hold, self.gate.take() is False
        self.run.series["train/loss"].append((step, self.mean))
        self.run.series["lr/AdamW"].append((step, self.scaler.stepped[0]))
        told = step, self.mean, self.scaler.scale, out and not held, state.max_steps
        observed = Observation(*told, held=held, unsaved=self.unsaved)
        self.known, decision = self.controller.update(self.known, observed)
        self.unsaved = decision.save is not None and not self.snapshots.save(decision.save)
        if decision.restore:
            self.snapshots.restore(decision.restore)
        if decision.reason:
            print(f"step {step}: {decision.reason}")
            self.run.decisions.append((step, row(decision, told[1], decision.action(told[2]))))
        self.scaler.apply(decision.scale)
        self.mean, self.gate.hold = 0.0, decision.hold
        control.should_training_stop |= decision.stop


folder = Path(*sys.argv[1:])
rows = [[(t * (1 + k % 3) + k) % 32 for t in range(24)] for k in range(256)]  # count by 1, 2 or 3
data = [{"input_ids": tokens, "labels": tokens} for tokens in rows]
size = {"vocab_size": 32, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 2}
model = GPT2Config(bos_token_id=0, eos_token_id=0, **size)
asked = TrainingArguments(folder / "hf", max_steps=120, learning_rate=1.0, disable_tqdm=True,
    gradient_accumulation_steps=2, use_cpu=True, report_to="none", save_strategy="no")  # fmt: skip
trainer = GuardedTrainer(None, asked, train_dataset=data, model_init=lambda: GPT2LMHeadModel(model))
trainer.train()
run = trainer.run._replace(decisions=settled(trainer.run.decisions))
draw({"guarded": run}).savefig(folder / "09_hf_trainer.png", dpi=110)
print(f"{len(run.series['train/loss'])} losses\n{folder / '09_hf_trainer.png'}")
