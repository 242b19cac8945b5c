import re

import pytest

from ms_segformer.datasets.class_names import CHINESE_NAMES, names_in
from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.errors import ArgumentError


def test_every_class_has_a_chinese_name_of_its_own():
    assert list(CHINESE_NAMES) == list(CLASSES)
    names = names_in('zh', CLASSES)
    assert len(set(names)) == len(CLASSES) == 171
    assert all(re.fullmatch('[\u4e00-\u9fff]{1,6}', name) for name in names)


@pytest.mark.parametrize(
    'english, chinese',
    [
        *(('person', '人'), ('car', '汽车'), ('traffic light', '交通信号灯'), ('giraffe', '长颈鹿'), ('road', '道路')),
        *(('mouse', '鼠标'), ('orange', '橙子'), ('pavement', '人行道'), ('sky-other', '天空'), ('wall-brick', '砖墙')),
        *(('tree', '树'), ('window-blind', '百叶窗'), ('sea', '海'), ('wood', '木材'), ('building-other', '其他建筑')),
    ],
)
def test_names_mean_the_same(english, chinese):
    assert names_in('zh', [english]) == [chinese]


def test_other_names_stay_and_english_changes_nothing():
    assert names_in('zh', ['road', 'my class', '桌子']) == ['道路', 'my class', '桌子']
    assert names_in('en', CLASSES) == list(CLASSES)


def test_another_language_is_an_error():
    with pytest.raises(ArgumentError, match="language='de': class names are known in en and zh"):
        names_in('de', CLASSES)
