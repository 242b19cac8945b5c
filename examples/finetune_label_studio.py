"""Fine-tune a model on an export of Label Studio (as JSON), every fifth labeled image kept for validation:

    python examples/finetune_label_studio.py project-1.json photos --model b0 --epochs 20

The labels are the classes. Brush masks, polygons and rectangles count, and pixels outside of all of them are not
learned from. `run/output` is then a model directory. The command `ms-segformer train b0 --data FOLDER` reads exports
too; this script shows how to choose the images of each split.
"""

import argparse
from pathlib import Path
from typing import Any

import ms_segformer
from ms_segformer.datasets.sources import SegSourceLabelStudio
from ms_segformer.integrations.modelscope.hub import model_directory


def main() -> None:
    parser = argparse.ArgumentParser(description='Fine-tune a model on an export of Label Studio.')
    parser.add_argument('export', type=Path, help='export of Label Studio, as JSON')
    parser.add_argument('images', type=Path, help='folder of the images that it names')
    parser.add_argument('--model', required=True, help='b0 to b5, a model directory, a hub id, or demo')
    parser.add_argument('--work-dir', type=Path, default='run', help='default: %(default)s')
    parser.add_argument('--epochs', type=int, default=20, help='default: %(default)s')
    parser.add_argument('--lr', type=float, default=6e-5, help='learning rate, default: %(default)s')
    args = parser.parse_args()

    classes = SegSourceLabelStudio.class_names(str(args.export))
    names = [image.name for image in SegSourceLabelStudio.read_all(str(args.export))]
    if len(names) < 2:
        parser.error(f'{args.export}: {len(names)} labeled images; expected 2 at least, one for validation')
    splits = {'val': names[::5], 'train': [name for number, name in enumerate(names) if number % 5]}

    def configure(cfg: Any) -> Any:
        for split, chosen in splits.items():
            cfg.dataset[split].data_source = {
                'type': 'SegSourceLabelStudio',
                'img_root': str(args.images),
                'label_root': str(args.export),
                'split': chosen,
            }
        cfg.train.optimizer.lr = args.lr
        cfg.train.lr_scheduler.warmup_iters = (len(splits['train']) + 1) // 2  # an epoch, in batches of two
        return cfg

    trainer = ms_segformer.EasyCVTrainer(
        model=model_directory(args.model),
        classes=classes,
        cfg_modify_fn=configure,
        work_dir=args.work_dir,
        max_epochs=args.epochs,
    )
    trainer.train()
    print(f'{args.work_dir / "output"}: classes {", ".join(classes)}, mIoU {trainer.evaluate()["mIoU"]:.1%}')


if __name__ == '__main__':
    main()
