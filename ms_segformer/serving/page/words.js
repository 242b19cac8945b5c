// Everything the page says, in English and Chinese, and which of the two it speaks.

const EN = {
  title: 'ms-segformer: the class of every pixel of a picture',
  lead: 'The class of every pixel of a picture',
  intake: 'Drop a picture here, or paste it',
  intakeTouch: 'A picture, please',
  choose: 'Choose a file',
  take: 'Take a picture',
  example: 'Show the example',
  model: 'Model',
  privacy: 'Pictures go to the server of this page and nowhere else.',
  progress: 'Progress',
  cancel: 'Cancel',
  again: 'Try again',
  picture: 'Picture',
  canvas: 'The picture and its classes',
  keys: 'The arrow keys move a cross over the picture, in steps of one pixel while Shift is held; the class under it is read out.',
  credit: 'Photograph by danielbuechele, CC BY 2.0',
  hint: 'Point at the picture, or move over it with the arrow keys, to see the class there.',
  hintTouch: 'Touch the picture to see the class there.',
  here: ({ label, x, y }) => `${label} (x ${x}, y ${y})`,
  noClass: 'no class',
  plain: 'This browser cannot show the picture, so the classes are drawn on a plain ground.',
  differs: 'This browser shows the picture in other proportions than the server sees it in, so the classes are drawn on a plain ground.',
  classes: 'Classes',
  all: 'All',
  allLabel: 'All: show every class',
  none: 'None',
  noneLabel: 'None: hide every class',
  opacity: 'Opacity',
  class: 'Class',
  share: 'Share',
  score: 'Score',
  legend: 'Score: mean probability of the class there.',
  nothing: 'The model found none of its classes.',
  downloads: 'Download',
  saveLabels: 'Label map',
  saveLabelsLabel: 'Label map as PNG',
  saveOverlay: 'Overlay',
  saveOverlayLabel: 'Overlay as JPEG',
  saveJson: 'JSON',
  madeBy: ({ name, details, height, width, seconds }) =>
    `Model ${name}${details ? ` (${details})` : ''}, ${width} × ${height} pixels, ${seconds} s`,
  docs: 'The HTTP interface of this server',
  camera: 'Camera',
  video: 'What the camera sees',
  cameraWaiting: 'Waiting for the camera. The browser may ask whether this page may use it.',
  cameraRefused: 'The browser does not let this page use the camera. Its settings for this page can change that.',
  cameraMissing: 'No camera was found.',
  cameraTaken: 'The camera does not start. Another program may be using it.',

  uploading: 'Uploading the picture',
  waiting: 'Waiting for the result',
  labelMap: 'Waiting for the label map',
  drawing: 'Drawing the overlay at full size',
  busyAgain: 'The server is busy with other pictures. Trying again by itself',
  startingAgain: 'The server is still loading its models. Trying again by itself',
  inSeconds: ({ seconds }) => `in ${seconds} s`,
  done: ({ count }) => (count === 1 ? 'Done: 1 class.' : `Done: ${count} classes.`),
  saved: ({ name }) => `Saved as ${name}.`,
  canceled: 'Canceled.',
  firstOnly: ({ count, name }) => `Of ${count} files only the first is taken: ${name}`,

  problems: {
    busy: 'The server is busy.',
    starting: 'The server is still loading its models.',
    stopping: 'The server is being stopped.',
    timeout: 'The picture took the server too long.',
    'not-acceptable': 'The server cannot answer in this format.',
    'media-type': 'This kind of file is not taken.',
    'body-too-large': 'The file is too large.',
    'slow-body': 'The upload was too slow.',
    'broken-body': 'The upload arrived damaged.',
    'broken-request': 'The request could not be read.',
    'not-an-image': 'The file cannot be read as a picture.',
    'too-many-pixels': 'The picture has too many pixels.',
    'invalid-option': 'The server does not take an option of the request.',
    'foreign-page': 'The server answers its own page only.',
    'foreign-host': 'The server does not answer under this address.',
    'not-found': 'The server does not know this path.',
    method: 'The server does not take this kind of request.',
    internal: 'The server failed.',
    unreachable: 'The server cannot be reached.',
    'broken-off': 'The upload was broken off.',
    'strange-answer': 'The answer of the server cannot be read.',
    'no-file': 'No file was dropped.',
    'unreadable-file': 'The browser cannot read the file.',
    'too-large-to-draw': 'The overlay is too large for this browser.',
    failed: 'This did not work.',
  },
  details: {
    'media-type': ({ name, type }) => `${name} is ${type}, not a picture.`,
    unreachable: () => 'It may have been stopped, or the network is down.',
    'broken-off': () => 'The file may be larger than the server takes, or the connection was lost.',
    'no-file': () => 'A picture of another page has to be saved first, or copied and pasted here.',
    'unreadable-file': ({ name }) => `${name} is a folder, or it was moved or changed.`,
    'too-large-to-draw': ({ width, height }) =>
      `It cannot make a picture of ${width} × ${height} pixels. The label map and the JSON have the full size.`,
    status: ({ status }) => `HTTP status ${status}.`,
  },
};

const ZH = {
  title: 'ms-segformer：图像中每个像素的类别',
  lead: '图像中每个像素的类别',
  intake: '把图像拖到这里，或直接粘贴',
  intakeTouch: '请提供一张图像',
  choose: '选择文件',
  take: '拍照',
  example: '查看示例',
  model: '模型',
  privacy: '图像只发送到本页面所在的服务器。',
  progress: '进度',
  cancel: '取消',
  again: '重试',
  picture: '图像',
  canvas: '图像及其类别',
  keys: '用方向键在图像上移动十字，按住 Shift 时每次移动一个像素；会读出十字处的类别。',
  credit: '摄影：danielbuechele，CC BY 2.0',
  hint: '把指针移到图像上，或用方向键移动，可查看该处的类别。',
  hintTouch: '点按图像可查看该处的类别。',
  here: ({ label, x, y }) => `${label}（x ${x}，y ${y}）`,
  noClass: '无类别',
  plain: '浏览器无法显示这张图像，因此把类别画在纯色底上。',
  differs: '浏览器显示的图像与服务器看到的比例不同，因此把类别画在纯色底上。',
  classes: '类别',
  all: '全选',
  allLabel: '全选：显示所有类别',
  none: '全不选',
  noneLabel: '全不选：隐藏所有类别',
  opacity: '不透明度',
  class: '类别',
  share: '面积',
  score: '得分',
  legend: '得分：该类在其区域内的平均概率。',
  nothing: '没有找到模型认识的类别。',
  downloads: '下载',
  saveLabels: '标签图',
  saveLabelsLabel: '标签图，PNG 格式',
  saveOverlay: '叠加图',
  saveOverlayLabel: '叠加图，JPEG 格式',
  saveJson: 'JSON',
  madeBy: ({ name, details, height, width, seconds }) =>
    `模型 ${name}${details ? `（${details}）` : ''}，${width} × ${height} 像素，${seconds} 秒`,
  docs: '此服务器的 HTTP 接口',
  camera: '相机',
  video: '相机画面',
  cameraWaiting: '正在等待相机。浏览器可能会询问是否允许本页面使用相机。',
  cameraRefused: '浏览器不允许本页面使用相机，可在浏览器对本页面的设置中更改。',
  cameraMissing: '没有找到相机。',
  cameraTaken: '相机无法启动，可能正被其他程序使用。',

  uploading: '正在上传图像',
  waiting: '正在等待结果',
  labelMap: '正在等待标签图',
  drawing: '正在以原始大小绘制叠加图',
  busyAgain: '服务器正在处理其他图像，将自动重试',
  startingAgain: '服务器仍在加载模型，将自动重试',
  inSeconds: ({ seconds }) => `（${seconds} 秒后）`,
  done: ({ count }) => `完成：${count} 个类别。`,
  saved: ({ name }) => `已保存为 ${name}。`,
  canceled: '已取消。',
  firstOnly: ({ count, name }) => `共 ${count} 个文件，只处理第一个：${name}`,

  problems: {
    busy: '服务器正忙。',
    starting: '服务器仍在加载模型。',
    stopping: '服务器正在停止。',
    timeout: '处理这张图像的时间过长。',
    'not-acceptable': '服务器不能以这种格式回答。',
    'media-type': '不支持这种文件。',
    'body-too-large': '文件太大。',
    'slow-body': '上传太慢。',
    'broken-body': '上传的内容已损坏。',
    'broken-request': '请求无法读取。',
    'not-an-image': '无法把该文件读成图像。',
    'too-many-pixels': '图像的像素太多。',
    'invalid-option': '服务器不接受请求中的某个选项。',
    'foreign-page': '服务器只接受来自自己页面的请求。',
    'foreign-host': '服务器不以这个地址提供服务。',
    'not-found': '服务器上没有这个路径。',
    method: '服务器不接受这种请求。',
    internal: '服务器出错。',
    unreachable: '无法连接服务器。',
    'broken-off': '上传中断。',
    'strange-answer': '无法读取服务器的回答。',
    'no-file': '没有拖入文件。',
    'unreadable-file': '浏览器无法读取该文件。',
    'too-large-to-draw': '叠加图对这个浏览器来说太大。',
    failed: '操作没有成功。',
  },
  details: {
    'media-type': ({ name, type }) => `${name} 的类型是 ${type}，不是图像。`,
    unreachable: () => '服务器可能已停止，或网络已断开。',
    'broken-off': () => '文件可能超过服务器允许的大小，或连接已断开。',
    'no-file': () => '其他网页上的图像请先保存，或复制后粘贴到这里。',
    'unreadable-file': ({ name }) => `${name} 是文件夹，或者已被移动或修改。`,
    'too-large-to-draw': ({ width, height }) =>
      `浏览器无法生成 ${width} × ${height} 像素的图像。标签图和 JSON 是原始大小。`,
    status: ({ status }) => `HTTP 状态码 ${status}。`,
  },
};

// The keys of each, for the tests.
export const KEYS = { en: keys(EN), zh: keys(ZH) };

function keys(language) {
  return Object.entries(language).flatMap(([key, word]) =>
    typeof word === 'object' ? keys(word).map((inner) => `${key} ${inner}`) : [key],
  );
}

const TAGS = { en: 'en', zh: 'zh-CN' };
const said = new Map(); // element to the key and the values of what it says

export let language = preferred(navigator.languages ?? [navigator.language]);

// The first of the browser's languages that the page speaks.
function preferred(languages) {
  const known = languages.map((tag) => tag.toLowerCase().split('-')[0]).find((name) => name in TAGS);
  return known ?? 'en';
}

function words() {
  return language === 'zh' ? ZH : EN;
}

export function text(key, values) {
  const word = words()[key];
  return typeof word === 'function' ? word(values) : word;
}

// Says something in an element, and says it again when the language changes.
export function say(element, key, values) {
  said.set(element, [key, values]);
  element.textContent = key ? text(key, values) : '';
}

// What happened, in the page's language; `title` is what is said of kinds the page does not know.
export function titleOf(kind, title) {
  return words().problems[kind] ?? title ?? words().problems.failed;
}

// More about it, where the page and not the server has to say it.
export function detailOf(kind, values) {
  return words().details[kind]?.(values) ?? '';
}

// 0.0402 as 4.0 %; what would be 0.0 % as < 0.1 %.
export function percent(share, digits = 1) {
  if (digits && share > 0 && share < 0.0005) return `< ${percent(0.001)}`;
  const format = { style: 'percent', minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(TAGS[language], format).format(share);
}

export function fraction(value, digits) {
  return new Intl.NumberFormat(TAGS[language], { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(
    value,
  );
}

// Speaks this language from now on.
export function speak(name) {
  language = name;
  document.documentElement.lang = TAGS[name];
  document.title = text('title');
  for (const element of document.querySelectorAll('[data-word]')) element.textContent = text(element.dataset.word);
  for (const element of document.querySelectorAll('[data-label]')) {
    element.setAttribute('aria-label', text(element.dataset.label));
  }
  for (const [element, [key, values]] of said) element.textContent = key ? text(key, values) : '';
}
