"""A shopping list with onnxruntime and numpy only: `python read_list.py MODEL.onnx PHOTO.ppm` (or PHOTO.npy).

numpy decodes no JPEG: turn one into a PPM with `djpeg`, or give the uint8 RGB array [H, W, 3] of your camera.
"""

import json
import sys

import numpy as np
import onnxruntime

model, photo = onnxruntime.InferenceSession(sys.argv[1]), sys.argv[2]
if photo.endswith(".npy"):
    photo_HW3 = np.load(photo)
else:  # binary PPM: P6, width, height and 255, then the pixels
    data = np.fromfile(photo, np.uint8)
    width, height = map(int, data[:40].tobytes().split(maxsplit=4)[1:3])
    photo_HW3 = data[-width * height * 3 :].reshape(height, width, 3)
categories = json.loads(model.get_modelmeta().custom_metadata_map["tally"])["categories"]
boxes, scores, labels, products, count = model.run(None, {"photo": photo_HW3})
for category, number in zip(categories, products, strict=True):
    if number:
        print(number, category["sku"])
