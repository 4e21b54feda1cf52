// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * platform: a driver and its device find each other.
 *
 * The bus compares names; when a device and a driver fit, the driver's probe() gets the device with its resources. Both are in
 * this module, which is unusual: the device normally comes from firmware tables. What probe() acquires through devm_ functions
 * is given back by itself when the device goes.
 *
 *     kobox run examples/prebuilt/platform.ko
 */
#include <linux/device.h>
#include <linux/init.h>
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>

static int lamp_probe(struct platform_device *device)
{
	struct resource *window = platform_get_resource(device, IORESOURCE_MEM, 0);
	unsigned int *watts = dev_get_platdata(&device->dev);
	char *state;

	if (!window || !watts)
		return -EINVAL;
	state = devm_kstrdup(&device->dev, "off", GFP_KERNEL);
	if (!state)
		return -ENOMEM;
	platform_set_drvdata(device, state);
	dev_info(&device->dev, "%u watts, %llu bytes of registers, %s\n", *watts, (u64)resource_size(window), state);
	return *watts > 100 ? -ERANGE : 0;
}

static struct platform_driver lamp_driver = {
	.probe = lamp_probe,
	.driver = {
		.name = "kobox_lamp",
	},
};

static const struct resource lamp_window = DEFINE_RES_MEM(0xfe000000, 0x100);
static const unsigned int lamp_watts[] = { 40, 60, 1000 };
static struct platform_device *lamps[ARRAY_SIZE(lamp_watts)];

static void lamps_remove(unsigned int count)
{
	while (count--)
		platform_device_unregister(lamps[count]);
}

static int __init lamp_init(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lamps); i++) {
		struct resource window = lamp_window;

		window.start += 0x100 * i;
		window.end += 0x100 * i;
		lamps[i] = platform_device_register_resndata(NULL, "kobox_lamp", i, &window, 1, &lamp_watts[i],
							     sizeof(lamp_watts[i]));
		if (IS_ERR(lamps[i])) {
			lamps_remove(i);
			return PTR_ERR(lamps[i]);
		}
	}
	return platform_driver_register(&lamp_driver);
}

static void __exit lamp_exit(void)
{
	platform_driver_unregister(&lamp_driver);
	lamps_remove(ARRAY_SIZE(lamps));
	pr_info("platform: dark again\n");
}

module_init(lamp_init);
module_exit(lamp_exit);

MODULE_DESCRIPTION("A platform driver with three devices, of which one is too bright");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
