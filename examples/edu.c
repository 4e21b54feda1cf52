// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * edu: a driver for a PCI device, with registers, an interrupt and DMA.
 *
 * The device is QEMU's teaching device (1234:11e8), so the driver can be tried there (-device edu) as well as against a model in
 * Python. Its BAR 0 has, at 0x00 an identification, at 0x04 a register that answers what was written inverted, at 0x08 one that
 * computes a factorial and raises an interrupt when it is ready (0x20 status, 0x24 why, 0x64 acknowledge), and at 0x80 a DMA
 * engine with a buffer of 4 KiB at 0x40000 of its own.
 *
 * Write a number to /dev/kobox_edu and read its factorial.
 */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iopoll.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/uaccess.h>

enum edu_register {
	EDU_ID = 0x00,
	EDU_LIVE = 0x04,
	EDU_FACTORIAL = 0x08,
	EDU_STATUS = 0x20,
	EDU_IRQ_STATUS = 0x24,
	EDU_IRQ_ACK = 0x64,
	EDU_DMA_FROM = 0x80,
	EDU_DMA_TO = 0x88,
	EDU_DMA_SIZE = 0x90,
	EDU_DMA_COMMAND = 0x98,
};

#define EDU_STATUS_IRQ 0x80 /* raise an interrupt when the factorial is ready */
#define EDU_DMA_START 0x1
#define EDU_DMA_TO_RAM 0x2
#define EDU_BUFFER 0x40000
#define EDU_BLOCK 2048 /* less than the buffer: some versions of QEMU refuse to fill it to the last byte */

struct edu {
	void __iomem *registers;
	struct completion ready;
	struct miscdevice misc;
};

static irqreturn_t edu_interrupt(int irq, void *data)
{
	struct edu *edu = data;
	u32 why = readl(edu->registers + EDU_IRQ_STATUS);

	if (!why)
		return IRQ_NONE;
	writel(why, edu->registers + EDU_IRQ_ACK);
	complete(&edu->ready);
	return IRQ_HANDLED;
}

static ssize_t edu_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	struct edu *edu = container_of(file->private_data, struct edu, misc);
	u32 number;
	int error = kstrtou32_from_user(from, size, 0, &number);

	if (error)
		return error;
	reinit_completion(&edu->ready);
	writel(EDU_STATUS_IRQ, edu->registers + EDU_STATUS);
	writel(number, edu->registers + EDU_FACTORIAL);
	if (!wait_for_completion_timeout(&edu->ready, HZ))
		return -ETIMEDOUT;
	return size;
}

static ssize_t edu_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	struct edu *edu = container_of(file->private_data, struct edu, misc);
	char text[16];
	int length = scnprintf(text, sizeof(text), "%u\n", readl(edu->registers + EDU_FACTORIAL));

	return simple_read_from_buffer(to, size, pos, text, length);
}

static const struct file_operations edu_operations = {
	.owner = THIS_MODULE,
	.read = edu_read,
	.write = edu_write,
	.llseek = default_llseek,
};

static int edu_dma(struct edu *edu, u64 from, u64 to, u64 size, u32 direction)
{
	u32 command;

	writeq(from, edu->registers + EDU_DMA_FROM);
	writeq(to, edu->registers + EDU_DMA_TO);
	writeq(size, edu->registers + EDU_DMA_SIZE);
	writel(EDU_DMA_START | direction, edu->registers + EDU_DMA_COMMAND);
	return readl_poll_timeout(edu->registers + EDU_DMA_COMMAND, command, !(command & EDU_DMA_START), 1000, 1000000);
}

/* Sends a block through the device's buffer and back. */
static int edu_dma_check(struct pci_dev *device, struct edu *edu)
{
	dma_addr_t bus;
	u8 *block = dma_alloc_coherent(&device->dev, 2 * EDU_BLOCK, &bus, GFP_KERNEL);
	unsigned int i;
	int error;

	if (!block)
		return -ENOMEM;
	for (i = 0; i < EDU_BLOCK; i++)
		block[i] = i * 7;
	error = edu_dma(edu, bus, EDU_BUFFER, EDU_BLOCK, 0);
	if (!error)
		error = edu_dma(edu, EDU_BUFFER, bus + EDU_BLOCK, EDU_BLOCK, EDU_DMA_TO_RAM);
	if (!error && memcmp(block, block + EDU_BLOCK, EDU_BLOCK))
		error = -EIO;
	dma_free_coherent(&device->dev, 2 * EDU_BLOCK, block, bus);
	return error;
}

static int edu_probe(struct pci_dev *device, const struct pci_device_id *id)
{
	struct edu *edu = devm_kzalloc(&device->dev, sizeof(*edu), GFP_KERNEL);
	int error;

	if (!edu)
		return -ENOMEM;
	init_completion(&edu->ready);
	error = pcim_enable_device(device);
	if (error)
		return error;
	error = pcim_iomap_regions(device, BIT(0), KBUILD_MODNAME);
	if (error)
		return error;
	edu->registers = pcim_iomap_table(device)[0];

	writel(0x12345678, edu->registers + EDU_LIVE);
	if (readl(edu->registers + EDU_LIVE) != ~0x12345678)
		return -ENODEV;
	pci_info(device, "edu %08x answers\n", readl(edu->registers + EDU_ID));

	error = dma_set_mask_and_coherent(&device->dev, DMA_BIT_MASK(28));
	if (error)
		return error;
	pci_set_master(device);
	error = edu_dma_check(device, edu);
	pci_info(device, "DMA: %d\n", error);
	if (error)
		return error;

	error = pci_alloc_irq_vectors(device, 1, 1, PCI_IRQ_MSI);
	if (error < 0)
		return error;
	error = devm_request_irq(&device->dev, pci_irq_vector(device, 0), edu_interrupt, 0, KBUILD_MODNAME, edu);
	if (error)
		return error;

	edu->misc = (struct miscdevice){
		.minor = MISC_DYNAMIC_MINOR,
		.name = "kobox_edu",
		.fops = &edu_operations,
		.mode = 0666,
	};
	pci_set_drvdata(device, edu);
	return misc_register(&edu->misc);
}

static void edu_remove(struct pci_dev *device)
{
	struct edu *edu = pci_get_drvdata(device);

	misc_deregister(&edu->misc);
	pci_info(device, "edu is gone\n");
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{}
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "kobox_edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};

module_pci_driver(edu_driver);

MODULE_DESCRIPTION("A driver for QEMU's teaching device: registers, interrupt, DMA");
MODULE_AUTHOR("The kobox authors");
MODULE_LICENSE("Dual MIT/GPL");
