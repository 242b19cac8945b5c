import tempfile
import os

from modelscope.metainfo import Trainers
from modelscope.msdatasets import MsDataset
from modelscope.trainers import build_trainer
from modelscope.pipelines.builder import normalize_model_input

def _train():

    tmp_dir = tempfile.TemporaryDirectory().name
    if not os.path.exists(tmp_dir):
        os.makedirs(tmp_dir)
   
    model = 'damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k'
    checkpoint_path = os.path.join(normalize_model_input(model,'master'), 'pytorch_model.pt')
    print(checkpoint_path)
    #注意：本代码和配置仅仅作为示例使用，如果需要复现结果，请结合模型文件中的配置文件，使用8卡并行方式复现

    cfg_options = {
        'train.max_epochs': 31,
        'model.decode_head.norm_cfg.type': 'BN',
        'train.optimizer.lr' : 0,
        'train.lr_scheduler.warmup_ratio':1e-60,
    }

    trainer_name = Trainers.easycv
    train_dataset = MsDataset.load(
        dataset_name='coco_stuff164k',
        namespace='damo',
        split='train')
    eval_dataset = MsDataset.load(
        dataset_name='coco_stuff164k',
        namespace='damo',
        split='validation')
    kwargs = dict(
        model=model,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        work_dir=tmp_dir,
        cfg_options=cfg_options)

    trainer = build_trainer(trainer_name, kwargs)
    trainer.train(checkpoint_path=checkpoint_path)

if __name__ == '__main__':
    _train()
