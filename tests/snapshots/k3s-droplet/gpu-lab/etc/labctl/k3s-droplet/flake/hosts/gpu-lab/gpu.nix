# made by labctl from lab.yaml: edit that instead
{
  hardware.graphics.enable = true;

  hardware.nvidia = {
    open = true;
    nvidiaPersistenced = true;
    nvidiaSettings = false;
  };

  hardware.nvidia-container-toolkit = {
    enable = true;
    device-name-strategy = "uuid";
  };

  # this is what installs the driver, with a display or without
  services.xserver.videoDrivers = [ "nvidia" ];

  # there before whatever asks for the cards
  boot.kernelModules = [ "nvidia" "nvidia_uvm" ];

  systemd.services = {
    nvidia-persistenced = {
      # another driver's would fail beside the kernel module that is loaded: its turn comes with a reboot
      restartIfChanged = false;
      unitConfig.ConditionPathExists = "/proc/driver/nvidia/version";
    };
    nvidia-container-toolkit-cdi-generator = {
      # another driver's would fail beside the kernel module that is loaded: its turn comes with a reboot
      restartIfChanged = false;
      unitConfig.ConditionPathExists = "/proc/driver/nvidia/version";
    };
  };
}
